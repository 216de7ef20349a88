"""The scripts that make bash, zsh and fish complete dl-run, dl-runs and dl-data.

Each asks the command itself: `COMMAND completion SHELL --words ...` prints what its last word may become. zsh and fish
split the line into words. bash splits at "=" and ":", too, so it passes its line, and the part of it to replace.
"""

import re
from collections.abc import Iterable

BASH = """\
_dl_run() {
  local word IFS=
  COMPREPLY=()
  while read -r word; do
    [[ -z $word ]] || COMPREPLY+=("$word")
  done < <("$1" completion bash --words "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null)
}
complete -o default -o nospace -F _dl_run dl-run dl-runs dl-data"""

ZSH = """\
(( $+functions[compdef] )) || { autoload -Uz compinit; compinit; }
_dl_run() {
  local -a found=(${(f)"$($words[1] completion zsh --words "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)"})
  local -a open=(${(M)found:#*[=./]}) whole=(${found:#*[=./]})
  if (( $#found )); then
    compadd -S '' -a open
    compadd -a whole
  else
    compset -P '*='
    _files
  fi
}
compdef _dl_run dl-run dl-runs dl-data"""

FISH = """\
function __dl_run
  set -l line (commandline -cpo)
  $line[1] completion fish --words $line[2..] (commandline -ct) 2>/dev/null
end
for name in dl-run dl-runs dl-data
  complete -c $name -a '(__dl_run)'
end"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
PARTS = re.compile(r"""'([^']*)'?|"((?:\\.|[^"\\])*)"?|\\(.?)|([^'"\\]+)""", re.DOTALL)
WORD = re.compile(r"""(?:'[^']*'?|"(?:\\.|[^"\\])*"?|\\.?|[^\s'"\\]+)+""", re.DOTALL)
CLOSED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)
SPECIAL = re.compile(r"[^\w@%+=:,./~^\[\]-]")  # what bash reads as more than a letter


def split(shell: str, given: list[str]) -> list[str]:
    """Return the words of a command line, without the command; the last one is to be completed."""
    if shell == "bash":
        line = given[0] if given else ""
        words = list(WORD.finditer(line))[1:]
        is_new = not words or words[-1].end() < len(line)
        return [*(unquoted(word[0]) for word in words), *([""] if is_new else [])]
    return [*given[:-1], unquoted(given[-1]) if shell == "fish" else given[-1]] if given else [""]


def unquoted(word: str) -> str:
    """Return a word as the shell passes it on. A quote may still be open."""
    text = ""
    for single, double, escaped, plain in PARTS.findall(word):
        text += single + re.sub(r'\\([$`"\\])', r"\1", double) + escaped + plain
    return text


def replies(shell: str, words: list[str], candidates: Iterable[str]) -> list[str]:
    """Return the completions of the last word, as the shell expects them: those of bash replace only a part of it."""
    word = split(shell, words)[-1]
    fitting = [each for each in dict.fromkeys(candidates) if each.startswith(word)]
    if shell != "bash":
        return fitting
    prefix = word.removesuffix(unquoted(words[1]))
    texts = [each.removeprefix(prefix) for each in fitting]
    if re.search("""['"]""", CLOSED.sub("", words[0])):  # bash closes a quote that is open
        return texts
    return [SPECIAL.sub(r"\\\g<0>", text) + ("" if text.endswith(("=", ".", "/")) else " ") for text in texts]
