"""Mathematical problems: solutions, final answers, labelled steps."""
