"""Suggest a command or an option for one that does not exist: by habits from other tools, then by spelling."""

import re
import shlex
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from smai_cli.common.spelling import is_one_step, nearest
from smai_cli.common.text import one_line
from smai_cli.config.providers import PROVIDERS

_FEWEST_LETTERS = 3
_MOST_SHOWN = 200


class _Habit(NamedTuple):
    """Options of other tools, and the hint for the command `needed`, or for those with that option (empty: all)."""

    names: str
    needed: str
    hint: str


def _instead(names: str, meant: str) -> _Habit:
    """Return a habit with the hint to type `meant`."""
    return _Habit(names, meant.split(maxsplit=1)[0], f"did you mean {meant}?")


# From curl, llm, aichat, mods, sgpt, ollama, gh, claude, and the parameters of servers. The first match wins.
_CONTINUE = "--continue -c --resume -r --conversation --cid --session --session-id --history --repl -C --continue-last"
_FILE = "--file -f --files --input -i --input-file --infile"
_STREAM = "--stream --streaming -N --no-buffer --live"
_STREAMS = "the answer streams by default"
_OPTIONS = (
    _instead(_CONTINUE, "--chat FILE"),
    _instead(_CONTINUE, "--resume"),
    _instead(
        "--file -f --files --fragment --attachment --attachments --attachment-type --image --images --img --context"
        " --include --at --upload --add-dir",
        "-a FILE",
    ),
    _Habit(_FILE, "batch", "the file is an operand: smai batch FILE"),
    _Habit(_FILE, "decode", "the file is an operand: smai decode FILE"),
    _Habit(_STREAM, "--no-stream", _STREAMS),
    _Habit(_STREAM, "decode", _STREAMS),
    _instead("--timeout --time-limit --deadline --wait --max-timeout", "--max-time SECONDS"),
    _Habit(
        "--key -k --api-key --apikey --token --auth --bearer --openai-api-key -u --user",
        "--key-file",
        "--key-file FILE reads a key, and smai login stores one",
    ),
    _Habit(
        "--template -T --role -R --pattern --prompt-template --agent --persona --macro",
        "--chat",
        "-p NAME uses a profile, and -s @FILE reads a system message",
    ),
    _instead("--extract-last --xl --code --code-only --extract-code --code-block", "-x"),
    _Habit(
        "--log --logs --no-log --logging --database --save-log",
        "--dry-run",
        "SMAI_LOG names a file to which each run adds a line",
    ),
    _Habit("--host --hostname --address --bind", "--port", "it serves on 127.0.0.1 only"),
    _instead(
        "--host --url --server --endpoint --api-base --api-url --base --openai-base-url --hostname", "--base-url URL"
    ),
    _instead("--provider --vendor --backend --account", "-p NAME"),
    _instead(
        "--sys --system-prompt --append-system-prompt --system-message --instructions --instruct --developer -S",
        "-s TEXT",
    ),
    _instead(
        "--max-output-tokens --max-completion-tokens --max-new-tokens --num-predict --n-predict --predict --maxtokens",
        "--max-tokens N",
    ),
    _instead("--temp --heat", "-t N"),
    _instead("--topp --nucleus", "--top-p N"),
    _instead("--reasoning-effort --thinking-effort --think --thinking", "--effort WORD"),
    _instead("--show-reasoning --show-thinking", "--reasoning"),
    _instead("--json-schema --response-format --schema-file", "--schema FILE"),
    _instead("--json-object --json-mode", "--json"),
    _Habit("--output-format --format --fmt", "--jsonl", "--json asks for JSON, and --jsonl prints the events as JSON"),
    _instead("--out --outfile --output-file --save --save-to --dest", "-o FILE"),
    _instead("--silent --silence", "-q"),
    _instead("--debug --trace --debugging", "-v"),
    _instead("--retry --max-retries --attempts --tries", "--retries N"),
    _instead("--connection-timeout --conn-timeout", "--connect-timeout SECONDS"),
    _instead("--usage --stats --cost --show-usage", "--summary text"),
    _instead("--tool --tools --functions --function --mcp --mcp-config --allowed-tools", "-O tools=@FILE"),
    _instead("--param --params --parameter --set --extra --extra-body", "-O KEY=VALUE"),
    _instead("--frequency-penalty", "-O frequency_penalty=N"),
    _instead("--presence-penalty", "-O presence_penalty=N"),
    _instead("--top-k --topk", "-O top_k=N"),
    _instead("--concurrency --parallel --workers --threads --max-workers --procs -P", "-j N"),
    _instead("--dryrun --dry --simulate --no-send --preview", "--dry-run"),
    _Habit(
        "--print --prompt --query --text --question --message --input --input-text -i -d --data --data-raw",
        "--chat",
        "the prompt is an operand: smai ask TEXT",
    ),
    _Habit("--stdin --from-stdin", "--no-stdin", "piped stdin is read by default; the operand - places it"),
    _Habit("--copy --clipboard --paste", "--extract", "pipe the answer to a program such as xclip or pbcopy"),
    _Habit(
        "--markdown --md --no-md --no-markdown --render --plain --color --no-color --nowordwrap --highlight",
        "--extract",
        "the text is printed as the model sends it",
    ),
    _Habit("--insecure --cacert --ca-file --no-verify", "--base-url", "SSL_CERT_FILE names the certificates to trust"),
    _Habit("--proxy", "--base-url", "HTTPS_PROXY names the proxy"),
    _Habit("--list-models --models --list", "--base-url", "did you mean: smai models?"),
    _Habit("--version -V", "", "did you mean: smai --version?"),
)
_COMMANDS = {
    "login": "auth authenticate keys key init setup configure signin sign-in apikey token",
    "logout": "signout sign-out",
    "models": "list ls list-models model",
    "ask": "chat run prompt query generate gen complete say send exec code repl",
    "config --profiles": "profile profiles provider providers",
    "config": "settings configuration env",
    "doctor": "check test ping status health verify diagnose",
    "count": "tokens tokenize tokenise tokenizer",
    "batch": "bulk",
    "serve": "server start web ui proxy gateway",
    "decode": "parse replay",
    "completion": "completions autocomplete install-completion shell-completion",
}
_LOGS = ("logs", "log", "history")
_VERSIONS = ("version", "-v", "ver")
# Options of smai or of other tools whose values may be secrets.
_SECRET = re.compile(r"-[Hku]|--(header|user|(.*-)?(key|apikey|token|auth|bearer|secret|password))(=|\Z)")


def option_hint(name: str, command: str, options: Collection[str]) -> str | None:
    """Return the hint for the unknown option `name` of `command`, which has the `options`.

    None if no option is similar.
    """
    typed = name.lower().replace("_", "-") if name.startswith("--") else name
    if typed in options:
        return f"did you mean {typed}?"
    known = {command, "", *options}
    habits = {name: habit.hint for habit in _OPTIONS[::-1] if habit.needed in known for name in habit.names.split()}
    if typed in habits or not typed.startswith("--"):
        return habits.get(typed)
    hints = {option: f"did you mean {option}?" for option in options if option.startswith("--")}
    near = [names for names in (hints, habits) if any(is_one_step(typed, one) for one in names)]
    meant = nearest(typed, near[0] if near else hints) or _abbreviated(typed, hints)
    return (habits | hints)[meant] if meant else None


def command_hint(args: Sequence[str], commands: Collection[str]) -> str:
    """Return the hint for a command line whose first word is not one of `commands`."""
    name, rest = args[0].lower(), args[1:]
    if name in _LOGS:
        return "SMAI_LOG names a file that gets a line for each run, see man smai"
    if name in _VERSIONS:
        return _question("smai", "--version")
    for command, names in _COMMANDS.items():
        if name in names.split():
            is_prompt = command == "ask" and rest
            model = ["-m"] if is_prompt and name == "run" and len(rest) > 1 else []  # as ollama run MODEL PROMPT
            profile = ["-p", rest[-1]] if command == "login" and rest and rest[-1] in PROVIDERS else []
            return _question("smai", *command.split(), *(model + list(rest) if is_prompt else profile))
    if meant := nearest(name, commands):
        return _question("smai", meant, *rest)
    if "--help" in rest:
        return "see smai --help"
    return _question("smai", "ask", *args)


def operand_hint(message: str, command: str) -> str | None:
    """Return the hint if click's `message` is about a profile as an operand, which `command` does not take, or None."""
    name = re.search(r"extra argument \((\S+)\)", message)
    return f"did you mean: {command} -p {name[1]}?" if name and name[1] in PROVIDERS else None


def early_option_hint(
    args: Sequence[str], commands: Collection[str], options_of: Callable[[str], Collection[str]]
) -> str:
    """Return the hint for a command line with an option in place of the command; `options_of` takes a command."""
    if args[0] in _VERSIONS:
        return _question("smai", "--version")
    if meant := nearest(args[0], ("--version", "--help")):
        return _question("smai", meant)
    prompt = args[1:2]
    if args[0] in ("-p", "--print") and prompt and " " in prompt[0]:  # as claude -p PROMPT
        return _question("smai", "ask", *prompt, *args[2:])
    place = next((at for at, word in enumerate(args) if word in commands), None)
    command = "ask" if place is None else args[place]
    options = options_of(command)
    name = args[0].partition("=")[0]
    if f"-{name}" in options:  # as -model
        args = [f"-{args[0]}", *args[1:]]
    if name.startswith("--") and name not in options:
        return option_hint(name, command, options) or "see smai --help"
    if place is None:
        return f"options go after the command, {_question('smai', 'ask', *args)}"
    moved = [args[place], *args[:place], *args[place + 1 :]]
    return f"options go after the command, {_question('smai', *moved)}"


def _question(*words: str) -> str:
    """Return the question "did you mean ...?" with the words quoted for a shell.

    Shortens a command line that is long, or may contain a secret.
    """
    line = shlex.join(words)
    if len(line) > _MOST_SHOWN or line != one_line(line, _MOST_SHOWN) or any(map(_SECRET.match, words)):
        line = f"{shlex.join(words[:2])} ..."
    return f"did you mean: {line}?"


def _abbreviated(typed: str, names: Collection[str]) -> str | None:
    """Return the only one of `names` that begins with `typed`; None if there are several or none."""
    if len(typed.removeprefix("--")) < _FEWEST_LETTERS:
        return None
    found = [name for name in names if name.startswith(typed)]
    return found[0] if len(found) == 1 else None
