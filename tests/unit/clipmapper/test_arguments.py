"""Arguments of the commands: values that are taken as typed, and errors that say what to write instead."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tiny_runs import composed

from clipmapper.arguments import argument_problem, double_quoted, for_hydra, quoted
from clipmapper.config.checks import key_problem
from clipmapper.errors import UserError
from clipmapper.places import CONFIGS

GROUPS = sorted({str(path.parent.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")} - {".", "explain"})
ODD = "\\${}'\"ab=,[]() \n\t:~#%/é😀*?!;&|<>`^@"
TEXTS = st.text(st.sampled_from(ODD), min_size=1).filter(lambda text: text not in ("null", "???"))


def values_of(argument: str) -> list[Any]:
    """Return the values that the key has in the runs of a command with this argument, interpolations filled in."""
    [override] = OverridesParser.create().parse_overrides([argument])
    if not override.is_sweep_override():
        return [_value_in_config(override.value())]
    again = [f"key={each}" for each in override.sweep_string_iterator()]  # what Hydra gives each run of a sweep
    return [value for each in again for value in values_of(each)]


def _value_in_config(value: Any) -> Any:
    config = OmegaConf.create({"key": "before"})
    OmegaConf.update(config, "key", value)
    return OmegaConf.to_container(config, resolve=True)["key"]  # type: ignore[call-overload, index]


def unquoted(text: str) -> bool:
    return not (text[0] == text[-1] and text[0] in "'\"")


@given(TEXTS.filter(unquoted))
def test_every_character_of_a_path_is_taken_as_typed(text: str) -> None:
    assert values_of(quoted(f"checkpoint={text}")) == [text]
    assert values_of(quoted(f"++data.root={text}")) == [text]


@given(TEXTS)
def test_a_text_in_quotes_is_taken_without_them(text: str) -> None:
    assert values_of(quoted(f"question={double_quoted(text)}")) == [text]
    assert values_of(quoted(f"runs=[a b, {double_quoted(text)} ,c=d]")) == [["a b", text, "c=d"]]


@given(TEXTS)
def test_in_a_sweep_commas_separate_paths(text: str) -> None:
    assert values_of(quoted(f"resume=a=1,{double_quoted(text)},it's,that's", sweep=True)) == [
        "a=1",
        text,
        "it's",
        "that's",
    ]


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("checkpoint=null", [None]),
        ("checkpoint=runs/epoch=3.ckpt", ["runs/epoch=3.ckpt"]),
        ("answer=3", ["3"]),
        ("answer=true", ["true"]),
        ("image=it's", ["it's"]),
        ("image=", [""]),
        ("image='a' and 'b'", ["'a' and 'b'"]),
        ("data.captions=captions_{split}.json", ["captions_{split}.json"]),
        ("runs=[]", [[]]),
        ("runs=[runs/a,runs/b=1]", [["runs/a", "runs/b=1"]]),
        ("shared=[threads=1]", [["threads=1"]]),
    ],
)
def test_values_that_are_taken_as_typed(argument: str, values: list[Any]) -> None:
    assert values_of(quoted(argument)) == values


@pytest.mark.parametrize(
    "argument", ["samples=[1,2]", "task.optim.lr=1e-3", "mapper=a", "~resume", "seed=${data.seed}"]
)
def test_other_arguments_stay_unchanged(argument: str) -> None:
    assert for_hydra([argument]) == [argument]


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("data.extra_questions={same:4}", {"same": 4}),
        ("data.extra_questions.same=4", {"same": 4}),
        ("+data.extra_questions.same=4", {"same": 4}),
        ("++data.extra_questions={same:4,count:1}", {"same": 4, "count": 1}),
        ("data.extra_questions={}", {}),
    ],
)
def test_values_by_name_are_given_as_the_reference_shows(argument: str, found: dict[str, int]) -> None:
    assert composed("train", *for_hydra([argument])).data.extra_questions == found


def test_a_list_for_values_by_name_is_one_line() -> None:
    with pytest.raises(HydraException) as refused:
        composed("train", *for_hydra(["data.extra_questions=[same]"]))
    assert isinstance(refused.value.__cause__, OmegaConfBaseException)
    said = "config key data.extra_questions: is a group of values; write data.extra_questions={NAME:VALUE}"
    assert key_problem(refused.value.__cause__) == said


def test_commas_separate_values_only_in_a_sweep() -> None:
    assert for_hydra(["checkpoint=a,b"]) == ["checkpoint='a,b'"]
    for option in ("--multirun", "-m", "hydra.mode=MULTIRUN"):
        assert for_hydra([option, "checkpoint=a,b"]) == [option, "checkpoint='a','b'"]
        assert for_hydra([option, "checkpoint=choice(a,b)"]) == [option, "checkpoint=choice(a,b)"]
        assert for_hydra([option, "hydra.sweep.dir=a,b"]) == [option, "hydra.sweep.dir='a,b'"]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("form", ["{}=[a,b]", "{}=a,b", "+{}=[a,b]", "{}=[a, b]"])
def test_several_members_of_a_group_say_what_to_write(group: str, form: str) -> None:
    with pytest.raises(UserError) as refused:
        for_hydra([form.format(group)])
    assert f"add --multirun {group}=a," in str(refused.value)
    assert (f"give {group}.names=[a," in str(refused.value)) == (group in ("explainer", "measure"))


@pytest.mark.parametrize("value", ["null", "true", "3", "-1.5e3", "nan", "{a:1}"])
def test_what_is_no_name_of_a_member_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="is not the name of a file in mapper; give mapper=NAME"):
        for_hydra([f"mapper={value}"])


@pytest.mark.parametrize("group", GROUPS)
def test_a_sweep_takes_several_members_of_a_group(group: str) -> None:
    assert for_hydra(["--multirun", f"{group}=a,b"]) == ["--multirun", f"{group}=a,b"]
    with pytest.raises(UserError, match=f"{group}=a"):
        for_hydra([f"{group}=[a]"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["samples"], "samples is not KEY=VALUE; write samples=…"),
        (["--sample=3"], "unrecognized arguments: --sample=3; --help shows"),
        (["hydra.run.dir="], "hydra.run.dir= is empty: give a path"),
        (["hydra.run.dir=' '"], "hydra.run.dir=' ' is empty: give a path"),
        (["--multirun", "hydra.sweep.dir=null"], "hydra.sweep.dir=null is empty: give a path"),
        (["--cfg", "everything"], "argument --cfg/-c: invalid choice: 'everything'"),
    ],
)
def test_an_argument_that_is_no_override_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as refused:
        for_hydra(arguments)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
    assert capsys.readouterr() == ("", "")


def refusal(argument: str) -> str:
    with pytest.raises(HydraException) as refused:
        OverridesParser.create().parse_override(argument)
    return argument_problem(OverrideParseException(argument, str(refused.value)))


@pytest.mark.parametrize("value", ["a=b", "a(b", "é", "a#b", "it's", "[a=b", "{a", "a!", "a;b", "a&b", "<a>", '"a" b'])
def test_a_value_outside_the_grammar_says_how_to_write_it(value: str) -> None:
    line = refusal(f"data.test_split={value}")
    assert line.startswith(f"data.test_split={value}: ")
    [advice] = shlex.split(line.rpartition("put text in quotes: ")[2])
    assert values_of(advice) == [value]


def test_the_items_of_a_list_are_put_in_quotes() -> None:
    [advice] = shlex.split(refusal("data.train_splits=[a=b,c]").rpartition(": ")[2])
    assert values_of(advice) == [["a=b", "c"]]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("a b=3", "a b=3: a b is not a config key"),
        ("=3,(", "=3,(: an empty text is not a config key"),
        ("seed=int(x)", "seed=int(x): int(x) cannot be evaluated (ValueError"),
    ],
)
def test_a_key_or_a_call_outside_the_grammar_is_named(argument: str, message: str) -> None:
    assert refusal(argument).startswith(message.removesuffix(" (ValueError"))
