"""What the tests of this folder that run programs share: one emulator, its stacks and its fleet."""

import pytest
from emulator import Cloud, Fleet, Processes, Stack


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    started = Processes(tmp_path_factory.mktemp("infra"))
    try:
        yield started
    finally:
        started.end()


@pytest.fixture(scope="session")
def cloud(processes):
    return Cloud(processes)


@pytest.fixture(scope="session")
def stacks(cloud, processes):
    """Made before anything else is tested, so that the schedules' minute passes while other tests run."""
    return {"one": Stack(cloud, processes, "okki-one"), "fleet": Stack(cloud, processes, "okki-fleet", Fleet="on")}


@pytest.fixture(scope="session")
def fleet(stacks, cloud, processes):
    return Fleet(cloud, processes)
