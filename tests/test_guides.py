"""The page for those who come from distilabel: nothing of distilabel is left out, and what it names is there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import flows
import llms
import tasks
from flows import Pipeline
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXT = (DOCS / "coming-from-distilabel.md").read_text(encoding="utf-8")

DISTILABEL = [
    *("AnthropicLLM", "AnyscaleLLM", "AzureOpenAILLM", "ClientvLLM", "CohereLLM", "GroqLLM", "InferenceEndpointsLLM"),
    *("LiteLLM", "LlamaCppLLM", "MistralLLM", "MixtureOfAgentsLLM", "MlxLLM", "OllamaLLM", "OpenAILLM", "TogetherLLM"),
    *("TransformersLLM", "VertexAILLM", "vLLM", "CudaDevicePlacementMixin", "MagpieChatTemplateMixin"),
    *("LlamaCppEmbeddings", "SentenceTransformerEmbeddings", "vLLMEmbeddings"),
    *("InferenceEndpointsImageGeneration", "OpenAIImageGeneration"),
    *("APIGenExecutionChecker", "APIGenGenerator", "APIGenSemanticChecker", "ArgillaLabeller"),
    *("BitextRetrievalGenerator", "CLAIR", "ChatGeneration", "ComplexityScorer", "EmbeddingTaskGenerator"),
    *("EvolComplexity", "EvolComplexityGenerator", "EvolInstruct", "EvolInstructGenerator", "EvolQuality"),
    *("GenerateEmbeddings", "GenerateLongTextMatchingData", "GenerateSentencePair", "GenerateShortTextMatchingData"),
    *("GenerateTextClassificationData", "GenerateTextRetrievalData", "Genstruct", "ImageGeneration"),
    *("InstructionBacktranslation", "Magpie", "MagpieGenerator", "MathShepherdCompleter", "MathShepherdGenerator"),
    *("MonolingualTripletGenerator", "PairRM", "PrometheusEval", "QualityScorer", "SelfInstruct"),
    *("StructuredGeneration", "TextClassification", "TextClustering", "TextGeneration", "TextGenerationWithImage"),
    *("URIAL", "UltraFeedback"),
    *("CombineOutputs", "ConversationTemplate", "DBSCAN", "DataSampler", "DeitaFiltering", "EmbeddingDedup"),
    *("EmbeddingGeneration", "ExpandColumns", "FaissNearestNeighbour", "FormatChatGenerationDPO"),
    *("FormatChatGenerationSFT", "FormatPRM", "FormatTextGenerationDPO", "FormatTextGenerationSFT", "GroupColumns"),
    *("KeepColumns", "LoadDataFromDicts", "LoadDataFromDisk", "LoadDataFromFileSystem", "LoadDataFromHub"),
    *("MergeColumns", "MinHashDedup", "PreferenceToArgilla", "PrepareExamples", "PushToHub", "RewardModelScore"),
    *("TextGenerationToArgilla", "TruncateTextColumn", "UMAP"),
]
"""What distilabel 1.5.3 exports of LLMs, other models, Tasks and Steps."""


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the tables under a heading, without their header."""
    part = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert part is not None, heading
    lines = re.findall(r"^\| (.*) \|$", part[1], re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines if not line.startswith("distilabel |")]


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


HEADINGS = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
ROWS = [row for heading in HEADINGS for row in rows_of(heading)]
NAMED = sorted({code for row in ROWS for code in codes(row[1]) if re.fullmatch(r"[A-Z][A-Za-z]+", code)})
DOTTED = sorted({code for row in ROWS for code in codes(row[1]) if re.fullmatch(r"(llms|tasks|flows)\.[A-Z]\w+", code)})


def ours(name: str) -> Any:
    """What the project exports by that name."""
    return next((getattr(package, name) for package in (tasks, llms, flows) if name in package.__all__), None)


@pytest.mark.parametrize("name", NAMED)
def test_a_class_on_the_right_is_exported(name: str) -> None:
    assert ours(name) is not None


@pytest.mark.parametrize("path", DOTTED)
def test_a_name_with_its_package_is_exported_there(path: str) -> None:
    package, _, name = path.partition(".")

    assert name in {"llms": llms, "tasks": tasks, "flows": flows}[package].__all__


def test_every_class_of_distilabel_is_on_the_left() -> None:
    left = {code for row in ROWS for code in codes(row[0])}

    assert [name for name in DISTILABEL if name not in left] == []


def options_of(kinds: list[Any]) -> dict[str, list[Any]]:
    """The fields and generation parameters of classes, with their defaults."""
    found: dict[str, list[Any]] = {}
    for kind in kinds:
        for name, field in kind.model_fields.items():
            found.setdefault(name, []).append(field.default)
        if issubclass(kind, llms.LLM):
            for name, each in inspect.signature(kind.generating_function()).parameters.items():
                found.setdefault(name, []).append(each.default)
    return found


def rows_with_options() -> list[tuple[str, list[Any], str, str]]:
    """The options that rows name as `name=value`, each option's first one, with the classes they may belong to."""
    found: list[tuple[str, list[Any], str, str]] = []
    for row in [row for heading in ("Every Task", "LLMs", "Tasks", "Steps") for row in rows_of(heading)]:
        kinds = [
            kind for code in codes(row[1]) if inspect.isclass(kind := ours(code)) and hasattr(kind, "model_fields")
        ]
        named: dict[str, str] = {}
        for cell in row if row[1] == "the same" else row[2:]:
            for code in codes(cell):
                name, equals, value = code.partition("=")
                if equals and name.isidentifier():
                    named.setdefault(name, value)
        found += [(row[0], kinds or [tasks.Task], name, value) for name, value in named.items()]
    return found


@pytest.mark.parametrize(("row", "kinds", "name", "value"), rows_with_options())
def test_an_option_exists_and_has_the_default_that_the_page_says(
    row: str, kinds: list[Any], name: str, value: str
) -> None:
    options = options_of(kinds)

    assert name in options, row
    assert ast.literal_eval(value) in options[name], row


@pytest.mark.parametrize(
    "call",
    [code for row in rows_of("`Pipeline`") for code in codes(row[1]) if re.fullmatch(r"\w+\(.*\)", code)],
)
def test_a_call_of_a_pipeline_is_as_the_page_says(call: str) -> None:
    name, _, arguments = call.removesuffix(")").partition("(")
    signature = inspect.signature(Pipeline if name == "Pipeline" else getattr(Pipeline, name))

    for argument in arguments.split(", "):
        name, equals, value = argument.partition("=")
        assert name in signature.parameters
        assert not equals or signature.parameters[name].default == ast.literal_eval(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_is_linked_from_the_readme_or_another_page(page: Path) -> None:
    others = [ROOT / "README.md", *(each for each in PAGES if each != page)]

    assert any(
        re.search(rf"\]\([^)]*{re.escape(page.name)}[#)]", other.read_text(encoding="utf-8")) for other in others
    )
