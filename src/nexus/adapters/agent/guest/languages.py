"""How source text of each language becomes a program, and the node that waits in advance."""

from __future__ import annotations

import os
import sys

SCRIPT_TEXT = ""
"""The source of `script.py`; set when the agent starts."""
SUFFIXES = {"python": "py", "javascript": "js", "bash": "sh"}

_NODE = r"""
'use strict';
const fs = require('fs'), Module = require('module'), vm = require('vm');
const [path, cwd, ...env] = fs.readFileSync(3, 'utf8').split('\0');
fs.closeSync(3);
if (env.length) {
  for (const name of Object.keys(process.env)) delete process.env[name];
  for (const line of env) { const at = line.indexOf('='); process.env[line.slice(0, at)] = line.slice(at + 1); }
}
const file = cwd + '/main.js', source = fs.readFileSync(path, 'utf8');
process.argv = [process.argv[0], file];
const main = new Module('.', null);
main.filename = file;
main.paths = Module._nodeModulePaths(cwd);
main.loaded = true;
process.mainModule = require.cache[file] = main;
require.main = main;
const moduleOnly = /import statement outside a module|Unexpected token 'export'|await is only valid/;
let isModule = false;
try {
  new vm.Script(Module.wrap(source));
} catch (error) {
  isModule = moduleOnly.test(error.message);
}
if (isModule) import('data:text/javascript,' + encodeURIComponent(source));
else main._compile(source, file);
"""


def find(program: str, path: str) -> str | None:
    """Where `program` is on `path`."""
    if "/" in program:
        return program
    for folder in path.split(":"):
        candidate = folder + "/" + program
        if folder and os.access(candidate, os.X_OK):
            return candidate
    return None


def program(language: str, fresh: bool, path: str) -> list[str] | None:
    """The program that runs source text, to which its path is added (node reads it from descriptor 3 instead).

    [] for python in a warm interpreter; None for a language that is not there.
    """
    if language == "python":
        return [sys.executable, "-c", script_text()] if fresh else []
    if language == "bash":
        bash = find("bash", path)
        return [bash] if bash else None
    node = find("node", path)
    return [node, "-e", _NODE] if node else None


def script_text() -> str:
    """What `python -c` is given for a fresh interpreter."""
    return SCRIPT_TEXT + "\nsys.path[0] = ''\nrun(sys.argv[1])\n"


def node_input(source: str, cwd: str, env: dict[str, str] | None) -> bytes:
    """What a waiting node reads from descriptor 3; without `env` it keeps the one that it was started with."""
    parts = [source, cwd]
    if env is not None:
        parts += [name + "=" + value for name, value in env.items()]
    return "\0".join(parts).encode("utf-8", "surrogateescape")
