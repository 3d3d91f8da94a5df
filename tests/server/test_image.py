"""The Docker image: built from the same lists, it migrates and serves like the embedded server.

Runs wherever a Docker engine does. The image is built here unless ALPHAPLUS_IMAGE names one.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import psycopg
import pytest
from alphaplus import migrations as applier
from alphaplus.loaders import simulator
from psycopg import conninfo as pq

from tests.conftest import ROOT, free_port, password_of
from tests.db import serving

pytestmark = pytest.mark.timeout(1200)


def engine() -> bool:
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
        return done.returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(scope="module")
def image() -> str:
    if not engine():
        pytest.skip("NO DOCKER ENGINE: the image is not built and not tested here")
    named = os.environ.get("ALPHAPLUS_IMAGE")
    if named:
        return named
    subprocess.run(
        ["docker", "build", "--network=host", "--target", "server", "-f", "docker/Dockerfile",
         "-t", "alphaplus-server", "."],
        cwd=ROOT, check=True,
    )  # fmt: skip
    return "alphaplus-server"


@pytest.fixture(scope="module")
def superuser(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Connection string of the superuser of a container's server."""
    from testcontainers.core.container import DockerContainer

    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    port = free_port()
    container = (
        DockerContainer(image)
        .with_bind_ports(5432, port)
        .with_env("ALPHAPLUS_CLIENT_PORT", str(port))
        .with_kwargs(shm_size="512m")
    )
    with container:
        folder = tmp_path_factory.mktemp("image")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            code, text = container.exec("cat /state/pgpass")
            ready, _ = container.exec("pg_isready -q -h /state/run -p 5432")
            if code == 0 and ready == 0:
                break
            time.sleep(1)
        (folder / "pgpass").write_bytes(text)
        _, certificate = container.exec("cat /state/tls/ca.crt")
        (folder / "ca.crt").write_bytes(certificate)
        yield pq.make_conninfo(
            host="localhost",
            port=port,
            user="postgres",
            password=password_of(folder / "pgpass", "localhost", str(port), "postgres"),
            sslmode="verify-full",
            sslrootcert=str(folder / "ca.crt"),
            dbname="alphaplus",
        )


def test_the_image_migrates_simulates_and_computes(superuser: str) -> None:
    report = applier.migrate(superuser)
    assert report.migrations
    assert applier.migrate(superuser).migrations == ()
    with psycopg.connect(superuser, autocommit=True) as conn:
        market = simulator.simulate(5, 400, hazards=False)
        symbol = simulator.write(conn, "BTC", 5, market)
        conn.execute("call market.refresh_aggregates()")
        end = conn.execute(
            "select max(bucket) + interval '1 minute' from market.trades_1m where symbol = %s",
            (symbol,),
        ).fetchone()
        assert end is not None
        row = conn.execute(
            "select ts, order_flow_toxicity, spread_bps from feature.liquidation(%s, %s)",
            (symbol, end[0]),
        ).fetchone()
        assert row is not None and row[0] == end[0] and 0 < row[1] < 1 and row[2] > 0
        jobs = conn.execute("select count(*) from cron.job where jobname like 'alphaplus %'")
        assert jobs.fetchone() != (0,)


def test_backends_share_models(superuser: str) -> None:
    applier.migrate(superuser)
    with psycopg.connect(superuser, autocommit=True) as conn:
        serving.install(conn)
        x, y = serving.synthetic()
        version = serving.register(conn, serving.train(x, y, 5))
        conn.execute("select ml.predict_version(%s, %s)", (version, x[0].tolist()))
        row = conn.execute("select version_id, shared from ml.cache_status()").fetchone()
        assert row == (version, True)


def test_only_tls_gets_into_the_container(superuser: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"no encryption|pg_hba"):
        psycopg.connect(pq.make_conninfo(superuser, sslmode="disable"), connect_timeout=5)
