from flows.cli import main

# The variable of click's completion goes by the program's name, which has spaces here.
main(prog_name="python -m flows", complete_var="_STILLFLOW_COMPLETE")
