"""Templates as images: built by the same call that users have, and used whatever they declare."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus.adapters.providers.docker import build_image
from nexus.domain.errors import InvalidInput, OperationFailed
from nexus.domain.provider import Template
from tests.integration.docker.conftest import Lab


@pytest.fixture
def tag(lab: Lab) -> str:
    return f"nexus-test/built:{lab.installation}"


def test_the_default_image_has_what_it_promises(lab: Lab) -> None:
    seen = lab.sandbox()
    data = "import pandas, io\nprint(pandas.read_csv(io.StringIO('a,b\\n1,2\\n3,4')).sum().to_dict())"
    assert lab.run(seen.ref, data, "python").stdout == b"{'a': 4, 'b': 6}\n"
    assert lab.run(seen.ref, "console.log([1, 2].map(x => x * 2))", "javascript").stdout == b"[ 2, 4 ]\n"
    assert lab.run(seen.ref, "echo ${BASH_VERSION%%.*}; pwd; echo $HOME").stdout.split()[1:] == [b"/home/user"] * 2


def test_an_image_of_ones_own(lab: Lab, tag: str, docker_image: str, tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("from the context\n")
    recipe = tmp_path / "Dockerfile"
    recipe.write_text(
        f"FROM {docker_image}\nUSER root\nCOPY greeting /opt/greeting\nENV GREETING=image\nVOLUME /data\n"
        'HEALTHCHECK CMD false\nENTRYPOINT ["false"]\nUSER 4711\nWORKDIR /opt\nSTOPSIGNAL SIGUSR1\n'
    )
    heard: list[str] = []
    try:
        built = build_image(tag, dockerfile=recipe, context=tmp_path, base_url=lab.provider.url, log=heard.append)
        assert lab.engine.inspect_image(tag)["Id"] == built
        assert any("COPY greeting" in line for line in heard)
        seen = lab.sandbox(template=Template(name="own", image=tag))
        assert (
            lab.run(seen.ref, "cat /opt/greeting; echo $GREETING; pwd").stdout
            == b"from the context\nimage\n/home/user\n"
        )
        declared = (
            "echo x > /data/file && cat /data/file; head -c 100000000 /dev/zero > /data/big; du -b /data/big | cut -f1"
        )
        size = lab.run(seen.ref, declared).stdout.split()
        assert size[0] == b"x"
        assert int(size[1]) <= 16 << 20, "what the image declares as a volume has a limit, too"
        record = lab.container(seen)
        assert [mount["Type"] for mount in record["Mounts"]] == ["bind"], "no volume stays behind"
        assert "Health" not in record["State"]
    finally:
        lab.clean()
        lab.engine.remove_image(tag, force=True)


def test_a_build_that_fails_says_where(lab: Lab, tag: str, docker_image: str, tmp_path: Path) -> None:
    recipe = tmp_path / "Dockerfile"
    recipe.write_text(f"FROM {docker_image}\nRUN echo before; exit 3\n")
    with pytest.raises(OperationFailed, match="exit 3"):
        build_image(tag, dockerfile=recipe, base_url=lab.provider.url)


def test_a_recipe_that_is_not_there(lab: Lab, tag: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        build_image(tag, dockerfile=tmp_path / "nothing", base_url=lab.provider.url)
    with pytest.raises(InvalidInput, match="not a folder"):
        build_image(tag, context=tmp_path / "nothing", base_url=lab.provider.url)
