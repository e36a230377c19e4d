"""Migrations are applied once, in order, and whole or not at all."""

import asyncio
from pathlib import Path

import pytest

from runtime.migrate import migrate
from runtime.schema import MigrationError, Schema, migrations


def write(directory: Path, *files: str) -> Path:
    for number, text in enumerate(files, 1):
        (directory / f"{number:04}_step.sql").write_text(text)
    return directory


async def test_migrations_are_applied_once_and_in_order(empty_database: str, tmp_path: Path) -> None:
    write(tmp_path, "CREATE TABLE t (n int);", "ALTER TABLE t ADD m int; INSERT INTO t VALUES (1, 2);")
    assert await migrate(empty_database, tmp_path) == [1, 2]
    assert await migrate(empty_database, tmp_path) == []


async def test_parallel_migrations_wait_for_each_other(empty_database: str, tmp_path: Path) -> None:
    write(tmp_path, "SELECT pg_sleep(0.2); CREATE TABLE t (n int);")
    assert sorted(await asyncio.gather(*(migrate(empty_database, tmp_path) for _ in range(4)))) == [[], [], [], [1]]


async def test_older_program_leaves_a_newer_schema_alone(empty_database: str, tmp_path: Path) -> None:
    write(tmp_path, "CREATE TABLE t (n int);", "CREATE TABLE u (n int);")
    await migrate(empty_database, tmp_path)
    (tmp_path / "0002_step.sql").unlink()
    assert await migrate(empty_database, tmp_path) == []


async def test_failed_migration_changes_nothing(empty_database: str, tmp_path: Path) -> None:
    write(tmp_path, "CREATE TABLE t (n int);", "CREATE TABLE u (n int); SELECT 1/0;")
    with pytest.raises(MigrationError, match=r"^migration 0002_step: division by zero$"):
        await migrate(empty_database, tmp_path)
    write(tmp_path, "CREATE TABLE t (n int);", "CREATE TABLE u (n int);")
    assert await migrate(empty_database, tmp_path) == [2]


async def test_unavailable_database_is_one_clear_error(tmp_path: Path) -> None:
    write(tmp_path, "SELECT 1;")
    with pytest.raises(MigrationError, match="the database is unavailable"):
        await migrate("host=127.0.0.1 port=1 user=x", tmp_path, wait=0.2)


def test_files_must_be_numbered_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "0002_step.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationError, match="without a gap"):
        migrations(tmp_path)
    write(tmp_path, "SELECT 1;")
    assert Schema.load(tmp_path).version == 2
    (tmp_path / "later.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationError, match=r"later\.sql"):
        migrations(tmp_path)
