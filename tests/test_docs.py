"""The manual, the README, --help and the code name the same commands, options, defaults, statuses and messages."""

import ast
import functools
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from smai_cli.answer.outcome import Outcome
from smai_cli.cli.group import COMMANDS, smai
from smai_cli.cli.parsing.help import GROUPS, options_in_groups
from smai_cli.config.places import DEFAULT_BASE_URL
from smai_cli.errors import SmaiError, Status, UsageError
from smai_cli.output.summary import summary_json

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "smai_cli").rglob("*.py"))
CONTEXT = click.Context(smai, info_name="smai", **smai.context_settings)
NAMES = smai.list_commands(CONTEXT)
PAGES = ["smai", *(f"smai-{name}" for name in NAMES)]
# Pages in section 7, which are not about one command, each with the pages that it belongs to.
GUIDES = {"smai-servers": ["smai", "smai-ask", "smai-decode", "smai-doctor"], "smai-engines": ["smai", "smai-batch"]}
SECTIONS = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "EXAMPLES",
    "ENVIRONMENT",
    "FILES",
    "EXIT STATUS",
    "DIAGNOSTICS",
    "SEE ALSO",
]
# Long pages, whose options and details come after the examples.
LONG_PAGES = ["smai-ask", "smai-batch", "smai-mock", "smai-serve"]
VARIABLE = re.compile(r"\b(?:SMAI_[A-Z_]*[A-Z]|[A-Z]+_PROXY|[A-Z]+_CA_BUNDLE|SSL_CERT_FILE)\b")


def file_of(page: str) -> Path:
    return ROOT / "man" / f"{page}.{7 if page in GUIDES else 1}"


def source_of(page: str) -> str:
    return file_of(page).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    found = re.search(rf"^\.Sh {name}(?:\\&)?\n(.*?)(?=^\.Sh |\Z)", source_of(page), re.MULTILINE | re.DOTALL)
    assert found, f"{file_of(page).name} has no section {name}"
    return found[1]


def body(page: str) -> str:
    """Return the description of a page, with its options and details."""
    return "".join(
        section(page, name) for name in ("DESCRIPTION", *(("OPTIONS", "DETAILS") if page in LONG_PAGES else ()))
    )


def displays(page: str, name: str) -> list[str]:
    """Return each literal display in a section of a page, as a reader copies it."""
    found = re.findall(r"^\.Bd -literal.*\n((?:(?!\.Ed$).*\n)*)\.Ed$", section(page, name), re.MULTILINE)
    return [text.replace("\\e", "\\") for text in found]


def items(text: str) -> list[tuple[str, str]]:
    """Return each item of the lists in `text`: the text after `.It`, and the lines below it."""
    return re.findall(r"^\.It (.*)\n((?:(?!\.It |\.El).*\n)*)", text, re.MULTILINE)


def flags(line: str) -> list[str]:
    """Return the options in the `Fl` macros of a line as a user types them; `Fl hn` is -h and -n."""
    found = []
    for word in re.findall(r"\bFl ([\w-]+)", line):
        found += [f"-{word}"] if word.startswith("-") else [f"-{letter}" for letter in word]
    return found


def documented(page: str) -> list[tuple[list[str], str]]:
    """Return the names and the description of each option that a page lists."""
    return [(flags(head), text) for head, text in items(body(page)) if flags(head)]


def command_of(page: str) -> click.Command:
    if page == "smai":
        return smai
    command = smai.get_command(CONTEXT, page.removeprefix("smai-"))
    assert command
    return command


def options(page: str) -> list[click.Option]:
    command = command_of(page)
    context = CONTEXT if page == "smai" else click.Context(command, parent=CONTEXT, info_name=page)
    return [param for param in command.get_params(context) if isinstance(param, click.Option)]


def names_of(option: click.Option) -> list[str]:
    return sorted([*option.opts, *option.secondary_opts], key=len)


def all_names(page: str) -> list[str]:
    return [name for option in options(page) for name in names_of(option)]


def description(page: str, option: click.Option) -> str:
    return next(text for names, text in documented(page) if names == names_of(option))


def statuses(page: str) -> dict[int, str]:
    """Return the table of a page: the number of each status, and its kind in parentheses, if any."""
    heads = [re.fullmatch(r"(\d+)(?: Pq (\w+))?", head) for head, _ in items(section(page, "EXIT STATUS"))]
    return {int(head[1]): head[2] or "" for head in heads if head}


@functools.cache
def literals() -> str:
    """Return every string in the code, f-strings in their fixed parts, one a line."""
    nodes = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


OPTIONS = [
    pytest.param(page, option, id=f"{page} {max(option.opts, key=len)}") for page in PAGES for option in options(page)
]


def test_every_command_has_a_manual_page_and_there_is_no_other() -> None:
    assert set((ROOT / "man").iterdir()) == {file_of(page) for page in [*PAGES, *GUIDES]}


def test_the_package_puts_every_page_where_man_looks_for_its_section() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    pages = {source: place for source, place in installed.items() if source.startswith("man")}
    files = [file_of(page) for page in [*PAGES, *GUIDES]]
    assert pages == {f"man/{file.name}": f"share/man/man{file.suffix[1:]}/{file.name}" for file in files}


def test_smai_1_lists_every_command_and_no_other() -> None:
    listed = [head.removeprefix("Cm ") for head, _ in items(section("smai", "DESCRIPTION")) if head.startswith("Cm ")]
    assert listed == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_summary_of_a_command_is_the_first_line_of_its_help(name: str) -> None:
    assert COMMANDS[name] == command_of(f"smai-{name}").get_short_help_str(limit=200)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_refers_to_every_other_page(page: str) -> None:
    assert set(PAGES) - {page} <= set(re.findall(r"^\.Xr (\S+) 1", section(page, "SEE ALSO"), re.MULTILINE))


@pytest.mark.parametrize(("guide", "page"), [(guide, page) for guide, pages in GUIDES.items() for page in pages])
def test_a_guide_and_its_pages_refer_to_each_other(guide: str, page: str) -> None:
    assert f"{guide} 7" in re.findall(r"^\.Xr (\S+ \d)", section(page, "SEE ALSO"), re.MULTILINE)
    assert f"{page} 1" in re.findall(r"^\.Xr (\S+ \d)", section(guide, "SEE ALSO"), re.MULTILINE)


@pytest.mark.parametrize("page", [*PAGES, *GUIDES])
def test_a_page_has_the_sections_of_a_manual_in_their_order(page: str) -> None:
    expected = ["NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO"] if page in GUIDES else [*SECTIONS]
    if page in LONG_PAGES:
        place = expected.index("EXAMPLES") + 1
        expected[place:place] = ["OPTIONS", "DETAILS"]
    # With \& after it, mandoc does not complain that EXAMPLES come before ENVIRONMENT.
    assert re.findall(r"^\.Sh (.*?)(?:\\&)?$", source_of(page), re.MULTILINE) == expected


@pytest.mark.parametrize("page", [*PAGES, *GUIDES])
def test_mandoc_prints_no_warning(page: str) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed")

    lint = subprocess.run(
        [mandoc, "-T", "lint", "-W", "warning", file_of(page)], capture_output=True, text=True, check=False
    )

    assert (lint.returncode, lint.stdout) == (0, "")


@pytest.mark.parametrize(("page", "option"), OPTIONS)
def test_every_option_is_described_in_the_page_of_its_command(page: str, option: click.Option) -> None:
    assert names_of(option) in [names for names, _ in documented(page)]


@pytest.mark.parametrize(("page", "option"), OPTIONS)
def test_every_option_is_in_the_synopsis(page: str, option: click.Option) -> None:
    assert set(names_of(option)) & set(flags(section(page, "SYNOPSIS")))


@pytest.mark.parametrize("page", [*PAGES, *GUIDES])
def test_a_page_names_no_option_that_does_not_exist(page: str) -> None:
    more = {
        "smai": ["smai", "smai-ask"],
        "smai-batch": ["smai-batch", "smai-ask"],
        "smai-servers": ["smai-ask"],
        "smai-engines": ["smai-batch"],
    }
    known = more.get(page, [page])
    assert set(flags(source_of(page))) <= {name for of in known for name in all_names(of)}


def groups_in(page: str) -> dict[str, list[str]]:
    """Return the long names of the options of a page by the subsection that lists them; empty: none."""
    texts = re.split(r"^\.Ss (.*)\n", f".Ss \n{body(page)}", flags=re.MULTILINE)[1:]
    found = {
        title: [flags(head)[-1] for head, _ in items(text) if flags(head)]
        for title, text in zip(texts[::2], texts[1::2], strict=True)
    }
    return {title: names for title, names in found.items() if names}


@pytest.mark.parametrize("page", PAGES)
def test_the_options_of_a_page_are_in_alphabetical_order_within_a_group(page: str) -> None:
    assert [names for names in groups_in(page).values() if names != sorted(names)] == []


@pytest.mark.parametrize("page", ["smai-ask", "smai-batch"])
def test_the_options_of_a_page_are_in_the_groups_of_help(page: str) -> None:
    groups = options_in_groups(command_of(page), click.Context(command_of(page), parent=CONTEXT))
    expected = {title: sorted(names_of(option)[-1] for option in group) for title, group in groups.items()}
    assert list(groups_in(page).items()) == list(expected.items())
    assert set(expected) <= set(GROUPS)


@pytest.mark.parametrize(("page", "option"), OPTIONS)
def test_the_page_shows_an_argument_exactly_for_options_that_take_one(page: str, option: click.Option) -> None:
    head = next(head for head, _ in items(body(page)) if flags(head) == names_of(option))
    takes_one = not (option.is_flag or option.count)
    assert (" Ar " in head) == takes_one


@pytest.mark.parametrize(("page", "option"), OPTIONS)
def test_the_default_in_help_is_in_the_page(page: str, option: click.Option) -> None:
    described = description(page, option)
    shown = re.findall(r"\[default: ([^\];]+)", option.help or "")
    if option.show_default:
        shown.append(f"{option.default:g}" if isinstance(option.default, (int, float)) else str(option.default))
    for default in shown:
        assert re.search(rf"(?<![\w.]){re.escape(default)}(?!\w)", described)


@pytest.mark.parametrize(("page", "option"), OPTIONS)
def test_the_page_lists_the_values_that_an_option_accepts(page: str, option: click.Option) -> None:
    words = option.type.choices if isinstance(option.type, click.Choice) else ()
    listed = re.findall(r"^\.It Cm (\S+)", body(page), re.MULTILINE)
    assert set(words) <= {*listed, *re.findall(r"^\.Cm (\S+)", description(page, option), re.MULTILINE)}


def test_the_default_server_is_in_the_page() -> None:
    base_url = next(option for option in options("smai-ask") if "--base-url" in option.opts)
    assert f".Lk {DEFAULT_BASE_URL} .\n" in description("smai-ask", base_url)


def test_smai_1_lists_every_exit_status_with_its_kind() -> None:
    errors: list[type[SmaiError]] = [SmaiError, *SmaiError.__subclasses__()]
    kinds = {int(error.status): error.kind for error in errors}
    assert statuses("smai") == {int(Status.COMPLETE): "", **kinds}
    assert sorted(statuses("smai")) == sorted(map(int, Status))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_lists_the_exit_statuses_with_which_every_command_can_end(page: str) -> None:
    assert {Status.DEFECT, Status.USAGE, Status.BUSY, Status.OUTPUT} <= set(statuses(page))


def test_smai_ask_1_lists_every_exit_status() -> None:
    assert list(statuses("smai-ask")) == sorted(map(int, Status))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_lists_no_exit_status_that_does_not_exist(page: str) -> None:
    assert set(statuses(page)) <= set(map(int, Status))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_how_a_shell_shows_death_by_a_signal(page: str) -> None:
    text = section(page, "EXIT STATUS")
    assert all(word in text for word in ("SIGINT", "SIGPIPE", "SIGTERM", "130", "141", "143"))


def test_smai_ask_1_lists_exactly_the_environment_variables_of_the_code() -> None:
    in_code = {name for path in SOURCES for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    heads = [head for head, _ in items(section("smai-ask", "ENVIRONMENT")) if head.startswith("Ev ")]
    in_page = {name for head in heads for name in VARIABLE.findall(head)}

    assert in_code <= in_page
    assert {name for name in in_page if name.startswith("SMAI_")} <= in_code


def test_every_field_of_the_json_summary_is_in_smai_ask_1() -> None:
    outcome = Outcome()
    outcome.end(UsageError("no"))
    summary = json.loads(summary_json(outcome))
    fields = [*summary, *summary["error"]]

    text = section("smai-ask", "DETAILS")

    assert [head.removeprefix("Cm ") for head, _ in items(text) if head.startswith("Cm ")] == fields
    assert all(count in text for count in summary["usage"])


@pytest.mark.parametrize("page", PAGES)
def test_every_message_under_diagnostics_is_in_the_code(page: str) -> None:
    said = literals()
    for head, _ in items(section(page, "DIAGNOSTICS")):
        assert head.startswith("smai: ")
        parts = re.split(r"\.\.\.|; ", head.removeprefix("smai: "))
        assert [part for part in parts if part.strip() not in said] == []


def test_the_readme_lists_every_exit_status_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    assert rows - {130, 141, 143} == set(map(int, Status))


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"smai {name}" not in readme] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_uses_no_option_that_does_not_exist(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    calls = re.findall(rf"\bsmai {name}\b[^|;&`\n]*", readme)
    used = {option for call in calls for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", call)}
    assert used <= set(all_names(f"smai-{name}"))


def test_the_contributor_guide_names_every_package_and_only_files_that_exist() -> None:
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"\b(?:smai_cli|tests|man)/[\w./-]*\w", guide))
    packages = set(re.findall(r"^\| `(\w+)/` \|", guide, re.MULTILINE))
    assert len(paths) > 30
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
    assert packages == {file.parent.name for file in (ROOT / "smai_cli").glob("*/__init__.py")}


def test_the_check_runs_only_test_files_that_exist() -> None:
    paths = set(re.findall(r"\btests/[\w./-]*\w", (ROOT / ".ci" / "run").read_text(encoding="utf-8")))
    assert len(paths) > 5
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


@pytest.mark.parametrize(
    "name", ["README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md", "tests/benchmarks/README.md"]
)
def test_every_link_to_a_file_works(name: str) -> None:
    file = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (file.parent / link).exists()] == []
