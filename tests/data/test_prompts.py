import pytest

from bearray.data.prompts import (
    DOMAINS,
    PromptTemplate,
    render_answer,
    render_prompt,
    render_prompt_without_history,
    template_for,
)
from bearray.errors import ConfigError

PUBLISHED = {
    "toy": (
        "Given a list of toys the user has played before, "
        "please recommend a new toy that the user likes to the user.",
        "The user has played the following toys before: ",
    ),
    "book": (
        "Given a list of books the user has read before, "
        "please recommend a new book that the user likes to the user.",
        "The user has read the following books before: ",
    ),
    "clothing": (
        "Given a list of clothing the user has worn before, "
        "please recommend a new clothing that the user likes "
        "to the user.",
        "The user has worn the following clothing before: ",
    ),
    "office": (
        "Given a list of office products the user has used before, "
        "please recommend a new office product that the "
        "user likes to the user.",
        "The user has used the following office products before: ",
    ),
}


@pytest.mark.parametrize("domain", PUBLISHED)
def test_published_wording(domain: str) -> None:
    instruction, prefix = PUBLISHED[domain]
    assert DOMAINS[domain].instruction == instruction
    assert DOMAINS[domain].history_prefix == prefix


def test_whole_prompt_is_the_published_text() -> None:
    text = render_prompt(DOMAINS["book"], ["Kim", 'The "Best" Of'])
    assert text == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request. \n"
        "\n"
        "### Instruction:\n"
        "Given a list of books the user has read before, "
        "please recommend a new book that the user likes to the user.\n"
        "\n"
        "### Input:\n"
        'The user has read the following books before: "Kim", "The "Best" Of"\n'
        " \n"
        "\n"
        "### Response:\n"
    )


def test_without_history_the_input_block_is_gone() -> None:
    known = render_prompt(DOMAINS["book"], ["A", "B"])
    unknown = render_prompt_without_history(DOMAINS["book"])
    begin, _, rest = known.partition("### Input:")
    _, response, end = rest.partition("### Response:")
    assert unknown == begin + response + end and "Input" not in unknown.partition("### Instruction:")[2]


def test_answer_is_the_quoted_title() -> None:
    assert render_answer("Kim") == '"Kim"'


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("office", "office"), ("Amazon_Books", "book"), ("toy", "toy"), ("Toy-S", "toy"), ("ToyS", "toy"),
        ("Clothing", "clothing"), ("steam100k", "steam"), ("demo", "demo"), ("video_games", "game"),
        ("Musical_Instruments", "generic"), ("ebooks", "generic"), ("mine", "generic"), ("", "generic"),
    ],
)  # fmt: skip
def test_a_name_chooses_the_domain(name: str, domain: str) -> None:
    assert template_for(name) == DOMAINS[domain]


def test_unknown_data_uses_generic_words() -> None:
    assert template_for("groceries") == PromptTemplate("items", "interacted with", "item")


def test_own_words_beat_the_domain() -> None:
    template = template_for("book", "toy", ("wines", "tasted", "wine"))
    assert "a list of wines the user has tasted before, please recommend a new wine" in template.instruction


def test_a_named_domain_beats_the_name() -> None:
    assert template_for("book", "toy") == DOMAINS["toy"]


@pytest.mark.parametrize(
    "words", [("wines", "tasted"), ("wines", "tasted", ""), ("a", "b", "c", "d"), ("a\n", "b", "c")]
)
def test_wrong_words(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="word"):
        template_for("x", "auto", words)


def test_unknown_domain_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'cheese'.*toy, book"):
        template_for("x", "cheese")


def test_no_history() -> None:
    with pytest.raises(ConfigError, match="at least one title"):
        render_prompt(DOMAINS["toy"], [])
