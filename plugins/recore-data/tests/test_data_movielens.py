"""The dataset `movielens-1m`, on a small archive of the publisher's form."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from recore_data.movielens import build, fetch
from recore_data.options import MovieLens1M

from recore import Context, DataError
from recore.data import Interactions

FILES = {
    "README": "Neither the University of Minnesota …".encode(),
    "ratings.dat": b"1::1193::5::978300760\n1::661::3::978302109\n1::914::3::978300760\n2::1193::4::978298413\n",
    "movies.dat": (
        "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
        "914::Misérables: Les, 'x' \"y\" (1995)::Drama\n"
        "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n"
    ).encode("latin-1"),
    "users.dat": b"1::F::1::10::48067\n2::M::56::16::07072-1234\n",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return pack(tmp_path / "ml-1m.zip", FILES)


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("ml-1m/", b"")
        for name, data in files.items():
            made.writestr(f"ml-1m/{name}", data)
    return path


def load(options: MovieLens1M) -> Interactions:
    return build(options, Context()).load(Context())


def problem(options: MovieLens1M) -> str:
    with pytest.raises(DataError) as caught:
        load(options)
    return str(caught.value)


def test_the_archive_is_read(archive: Path) -> None:
    log = load(MovieLens1M(archive))
    assert log.events.rows() == [
        (0, 1, 1193, 5, 978300760),
        (2, 1, 914, 3, 978300760),
        (1, 1, 661, 3, 978302109),
        (3, 2, 1193, 4, 978298413),
    ]
    assert log.events.columns == ["event", "user", "item", "rating", "time"]
    assert log.items is not None
    assert log.users is not None
    assert log.items.columns == ["item", "title", "genres"]
    assert log.items.row(1) == (914, "Misérables: Les, 'x' \"y\" (1995)", "Drama")
    assert log.users.rows() == [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "07072-1234")]
    assert log.order_across_users
    assert log.counts["events whose time another of the same user has"] == 2
    assert load(MovieLens1M(archive, ties="hash")).ties == "hash"


def test_folders_are_read_alike(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "out")
    whole = load(MovieLens1M(archive))
    for folder in (tmp_path / "out", tmp_path / "out" / "ml-1m"):
        assert load(MovieLens1M(folder)).fingerprint() == whole.fingerprint()


def test_what_is_not_of_the_form(tmp_path: Path) -> None:
    path = tmp_path / "ml-1m.zip"
    assert problem(MovieLens1M(path)) == (
        f"{path} is not there (set `fetch: true`, or download "
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip to that place)"
    )
    path.write_bytes(b"PK no")
    assert "is not a whole zip" in problem(MovieLens1M(path))
    pack(path, {"ratings.dat": b"1::2::3::4\n"})
    assert "has no movies.dat, users.dat: expected MovieLens-1M" in problem(MovieLens1M(path))
    pack(path, {**FILES, "ratings.dat": b"1::2::3::4\n1::2::3\n"})
    assert problem(MovieLens1M(path)) == (
        f"{path}/ml-1m/ratings.dat: 1 of 2 lines do not have 4 fields: line 2: '1::2::3'"
    )
    pack(path, {**FILES, "ratings.dat": b"1::2::3::soon\n1::x::3::4\n"})
    assert problem(MovieLens1M(path)).split("\n") == [
        f"{path}/ml-1m/ratings.dat: 1 of 2 lines have a item that is no Int64: line 2: '1::x::3::4'",
        f"{path}/ml-1m/ratings.dat: 1 of 2 lines have a time that is no Int64: line 1: '1::2::3::soon'",
    ]


def test_fetching_keeps_the_file_only_with_the_right_checksum(archive: Path, tmp_path: Path) -> None:
    url, whole = archive.as_uri(), hashlib.sha256(archive.read_bytes()).hexdigest()
    there = tmp_path / "new" / "ml-1m.zip"
    with pytest.raises(
        DataError, match=f"expected a file with sha256 {'0' * 64}, got {whole}; nothing was kept"
    ):
        fetch(there, url, "0" * 64)
    assert list(there.parent.iterdir()) == []
    fetch(there, url, whole)
    assert there.read_bytes() == archive.read_bytes()
    assert [path.name for path in there.parent.iterdir()] == ["ml-1m.zip"]
    with pytest.raises(DataError, match=r"could not be fetched: .* \(download it by other means to "):
        fetch(tmp_path / "x" / "y.zip", (tmp_path / "nowhere").as_uri(), whole)
    assert list((tmp_path / "x").iterdir()) == []


def test_what_is_there_is_not_fetched(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("recore_data.movielens.fetch", asked.append)
    load(MovieLens1M(archive, fetch=True))
    assert asked == []
    missing = archive.with_name("other.zip")
    with pytest.raises(DataError):
        load(MovieLens1M(missing, fetch=True))
    assert asked == [missing]
