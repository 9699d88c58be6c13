"""Settings: `NEXUS_*` environment variables, then a TOML file, then defaults; each value knows where it came from.

Standard library and platformdirs only, because every command line call reads this.
"""

from __future__ import annotations

import getpass
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nexus.domain.errors import ConfigurationError, InvalidInput
from nexus.domain.policies import Limits
from nexus.domain.provider import Limits as ResourceLimits
from nexus.domain.provider import Template
from nexus.domain.validation import identifier, shown
from nexus.domain.values import Principal

if TYPE_CHECKING:
    from nexus.domain.pool import PoolPlan


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: where it may come from and what it is."""

    name: str
    kind: type
    default: Any
    about: str
    variables: tuple[str, ...]
    secret: bool = False


def _setting(name: str, kind: type, default: Any, about: str, *also: str, secret: bool = False) -> Setting:
    return Setting(name, kind, default, about, (f"NEXUS_{name.upper()}", *also), secret)


SETTINGS: Final[tuple[Setting, ...]] = (
    _setting("data_dir", Path, None, "folder of the embedded store, local sandboxes and files"),
    _setting("database_url", str, "", "postgresql://… ; empty: a SQLite file in the data folder", secret=True),
    _setting("sandbox_provider", str, "", "default provider; empty: local where it can run, else docker"),
    _setting("user", str, "", "whose sandboxes; empty: the operating system's user"),
    _setting("tenant", str, "default", "tenant"),
    _setting("agent", str, "", "agent on whose behalf"),
    _setting("admin", bool, False, "see and operate all sandboxes of the tenant"),
    _setting("default_ttl_minutes", int, 10, "time to live of a sandbox that names none"),
    _setting("max_ttl_minutes", int, 1440, "longest time to live"),
    _setting("max_age_days", int, 30, "longest life of a paused sandbox"),
    _setting("max_timeout", int, 3600, "longest time-out of a run, seconds"),
    _setting("sweep_seconds", int, 300, "how often the embedded background sweep looks for expired sandboxes"),
    _setting("pool_size", int, 0, "sandboxes kept ready of the default template; 0: none"),
    _setting("pool_total", int, 10, "the most that are kept ready of all templates together"),
    _setting("pool_provider", str, "docker", "provider that keeps them ready"),
    _setting("capture", bool, False, "keep code and output of new sandboxes' runs, encrypted and outside the log"),
    _setting("capture_key", str, "", "its master key, base64 of 32 bytes; empty: the key file", secret=True),
    _setting("capture_key_file", Path, None, "file of that key; on the embedded store made at first use"),
    _setting("capture_days", int, 30, "how long code and output are kept; 0: until they are erased"),
    _setting("local_python", str, "", "interpreter of the local provider's default template"),
    _setting("docker_host", str, "", "Docker Engine; empty: the current docker context", "DOCKER_HOST"),
    _setting("docker_image", str, "", "image of the docker provider's default template"),
    _setting("docker_network", str, "", "engine's network for sandboxes; empty: its bridge"),
    _setting("e2b_api_key", str, "", "E2B API key", "E2B_API_KEY", secret=True),
    _setting("e2b_template_id", str, "", "E2B template", "E2B_TEMPLATE_ID"),
    _setting("modal_token_id", str, "", "Modal token id", "MODAL_TOKEN_ID", secret=True),
    _setting("modal_token_secret", str, "", "Modal token secret", "MODAL_TOKEN_SECRET", secret=True),
    _setting("modal_app_name", str, "nexus", "Modal app that holds the sandboxes"),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
_HIGHEST_PRICE: Final = 1_000_000
_LARGEST_POOL: Final = 100
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True)
class Settings:
    """Resolved settings. Attributes are the names in `SETTINGS`; `sources` says where each value came from."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    templates: Mapping[str, Template] = field(default_factory=dict)
    file: Path | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    """Provider → price of an active hour, in whatever currency the user thinks in; `nexus usage` reckons with it."""
    paused_prices: Mapping[str, float] = field(default_factory=dict)
    """The same for a paused hour, which costs nothing where no price is given."""

    def __getattr__(self, name: str) -> Any:
        # Without values, as while it is copied or unpickled, it has no settings, and asking for them would not end.
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def limits(self) -> Limits:
        return Limits(
            default_ttl_minutes=min(self.values["default_ttl_minutes"], self.values["max_ttl_minutes"]),
            max_ttl_minutes=self.values["max_ttl_minutes"],
            max_age_days=self.values["max_age_days"],
            max_timeout=self.values["max_timeout"],
        )

    @property
    def principal(self) -> Principal:
        """The principal of a process of this user."""
        return Principal(
            user_id=self.values["user"],
            tenant_id=self.values["tenant"],
            agent_id=self.values["agent"] or None,
            is_admin=self.values["admin"],
        )

    @property
    def pool(self) -> PoolPlan | None:
        """What is to be kept ready; None when nothing is."""
        sizes = {"default": self.values["pool_size"]}
        sizes |= {name: template.pool for name, template in self.templates.items() if template.pool is not None}
        sizes = {name: size for name, size in sizes.items() if size > 0}
        if not sizes:
            return None
        from nexus.domain.pool import PoolPlan

        return PoolPlan(provider=self.values["pool_provider"], sizes=sizes, total=self.values["pool_total"])

    def template(self, name: str | None) -> Template:
        """A configured template, or one that was built here; another name is the provider's own image or id."""
        known = self.templates.get(name or "default")
        if known is None:
            declared = name in (None, "default") or self.built_python(name).exists()
            known = Template(name="default") if name is None else Template(name=name, declared=declared)
            if not declared:
                return replace(known, image=name, template_id=name)
        built = self.built_python(known.name)
        return replace(known, python=str(built)) if known.python is None and built.exists() else known

    def built_python(self, template: str) -> Path:
        """Where `nexus template build` puts the interpreter of a local template."""
        folder: Path = self.values["data_dir"]
        return folder / "templates" / template / "bin" / "python"


def default_data_dir() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("nexus", appauthor=False))


def default_config_file() -> Path:
    import platformdirs

    return Path(platformdirs.user_config_dir("nexus", appauthor=False)) / "config.toml"


def load(env: Mapping[str, str] | None = None, file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings.

    `overrides` are values that the program itself gives (None: not given). Raises `ConfigurationError` that names
    the variable or the file and the key, never a secret's value.
    """
    env = os.environ if env is None else env
    path = file or (Path(env["NEXUS_CONFIG"]) if env.get("NEXUS_CONFIG") else default_config_file())
    table, templates, prices, paused_prices = _read_file(
        path, required=file is not None or bool(env.get("NEXUS_CONFIG"))
    )
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        if overrides.get(setting.name) is not None:
            values[setting.name], sources[setting.name] = overrides[setting.name], "argument"
            continue
        variable = next((name for name in setting.variables if env.get(name)), None)
        if variable is not None:
            values[setting.name] = _from_text(setting, env[variable], variable)
            sources[setting.name] = f"environment ({variable})"
        elif setting.name in table:
            values[setting.name] = _from_toml(setting, table[setting.name], path)
            sources[setting.name] = f"file ({path})"
        else:
            values[setting.name], sources[setting.name] = setting.default, "default"
    if values["data_dir"] is None:
        values["data_dir"] = default_data_dir()
    values["data_dir"] = Path(values["data_dir"]).expanduser().absolute()
    key_file = values["capture_key_file"] or values["data_dir"] / "keys" / "capture.key"
    values["capture_key_file"] = Path(key_file).expanduser().absolute()
    if not values["user"]:
        values["user"] = _os_user()
    _check(values)
    file = path if path.is_file() else None
    return Settings(
        values=values, sources=sources, templates=templates, file=file, prices=prices, paused_prices=paused_prices
    )


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{os.getuid()}"


def _check(values: Mapping[str, Any]) -> None:
    for name, lowest, highest in (
        ("max_ttl_minutes", 1, 525_600),
        ("default_ttl_minutes", 1, 525_600),
        ("max_age_days", 1, 3650),
        ("max_timeout", 1, 86_400),
        ("sweep_seconds", 1, 86_400),
        ("pool_size", 0, _LARGEST_POOL),
        ("pool_total", 1, 1000),
        ("capture_days", 0, 3650),
    ):
        if not lowest <= values[name] <= highest:
            raise ConfigurationError(
                f"Setting {name} is out of range", hint=f"Give {lowest} to {highest} in NEXUS_{name.upper()}."
            )
    for name in ("user", "tenant", "agent"):
        text = values[name]
        if not isinstance(text, str) or len(text) > 128 or not text.isprintable():
            raise ConfigurationError(f"Setting {name} must be at most 128 printable characters")


def _from_text(setting: Setting, text: str, variable: str) -> Any:
    if setting.kind is bool:
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise ConfigurationError(f"{variable} must be true or false")
    if setting.kind is int:
        if not (text.isascii() and text.lstrip("-").isdigit() and len(text) < 12):
            raise ConfigurationError(f"{variable} must be a whole number, not {shown(text)}")
        return int(text)
    return setting.kind(text)


def _from_toml(setting: Setting, value: Any, path: Path) -> Any:
    wanted = str if setting.kind is Path else setting.kind
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigurationError(f"{setting.name} in {path} must be of type {wanted.__name__}")
    return setting.kind(value)


def _read_file(
    path: Path, *, required: bool
) -> tuple[dict[str, Any], dict[str, Template], dict[str, float], dict[str, float]]:
    try:
        with path.open("rb") as handle:
            table = tomllib.load(handle)
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"There is no configuration file {path}") from None
        return {}, {}, {}, {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The configuration file {path} cannot be read: {error}") from None
    templates = {name: _template(name, value, path) for name, value in _pop_table(table, "templates", path).items()}
    prices, paused_prices = (
        {name: _price(name, value, path) for name, value in _pop_table(table, which, path).items()}
        for which in ("prices", "paused_prices")
    )
    unknown = sorted(set(table) - set(_BY_NAME))
    if unknown:
        raise ConfigurationError(
            f"Unknown setting {shown(unknown[0])} in {path}", hint="`nexus config show` lists the settings."
        )
    return table, templates, prices, paused_prices


def _pop_table(table: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = table.pop(name, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{name} in {path} must be a table", hint=f"Write [{name}] on a line of its own.")
    return found


def _price(provider: str, value: Any, path: Path) -> float:
    try:
        identifier(provider, "provider name")
    except InvalidInput as error:
        raise ConfigurationError(f"Price of {shown(provider)} in {path}: {error}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _HIGHEST_PRICE:
        raise ConfigurationError(
            f"The price of {shown(provider)} in {path} is not one", hint="Give a price per hour, such as 0.10."
        )
    return float(value)


def _pool_size(template: Mapping[str, Any]) -> int | None:
    size = template.get("pool")
    if size is not None and (type(size) is not int or not 0 <= size <= _LARGEST_POOL):
        raise InvalidInput(f"pool is a whole number of sandboxes from 0 to {_LARGEST_POOL}")
    return size


def _template(name: str, value: Any, path: Path) -> Template:
    fields = {"image", "python", "template_id", "gpu", "limits", "env", "pool"}
    try:
        identifier(name, "template name")
        if not isinstance(value, Mapping) or set(value) - fields:
            raise InvalidInput(f"a template has the keys {', '.join(sorted(fields))}")
        limits = ResourceLimits(**value.get("limits", {}))
        rest = {key: value[key] for key in ("image", "python", "template_id", "gpu") if key in value}
        return Template(name=name, limits=limits, env=dict(value.get("env", {})), pool=_pool_size(value), **rest)
    except (InvalidInput, TypeError) as error:
        raise ConfigurationError(f"Template {shown(name)} in {path}: {error}") from None
