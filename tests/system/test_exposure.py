"""The exposure of each running service by `systemd-analyze security`; a service without a bound fails the test."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from tests.system.faults import await_that, configured, processes
from tests.system.service import Service, run
from tests.system.test_superuser import await_promotion, promoting

UNITS = Path("/usr/lib/systemd/system")
# The scores are from 0 to 10. One or two lines of a sandbox change the decimal.
BOUNDS = {
    r"draupnir\.service": 1.2,
    r"draupnir-helper\.service": 1.5,
    r"draupnir-metadata\.service": 1.2,
    r"draupnir-extract-\d+\.service": 0.5,
    r"draupnir-finalise-\d+\.service": 0.5,
    r"draupnir-instance-\d+\.service": 1.3,
    r"draupnir-instance-promotion-\d+\.service": 1.3,
    # It uses the network of the host, which the operator has to allow.
    r"draupnir-instance-direct-\d+\.service": 1.8,
    # The proxy has no mount namespace, which would take longer than its whole start.
    r"draupnir-port-\d+\.service": 2.5,
    # It needs one capability for quota groups. A separate root directory hides the machine without further lines.
    r"draupnir-quota@\w+\.service": 1.4,
    # It formats and mounts at boot, and its only input is the configuration file.
    r"draupnir-setup\.service": 8.6,
    # A dummy for a socket unit. It never starts.
    r"draupnir-gate\.service": 9.6,
}


def exposure(unit: str) -> float:
    """Return systemd's rating of the loaded unit."""
    last = run("systemd-analyze", "security", "--no-pager", unit).stdout.splitlines()[-1]
    found = re.search(r"exposure level for .*: ([0-9.]+) ", last)
    assert found, last
    return float(found[1])


def loaded() -> set[str]:
    listing = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "--type=service", "draupnir*").stdout
    return {line.split()[0] for line in listing.splitlines()}


def installed() -> set[str]:
    """Return services with a unit file; a template represents all its instances."""
    return {path.name.replace("@.", "@1.") for path in UNITS.glob("draupnir*.service") if path.is_file()}


def kinds() -> list[str]:
    """Return the prefixes of transient services whose sandbox is in a drop-in."""
    return [path.name.removesuffix(".service.d") for path in UNITS.glob("draupnir-*-.service.d")]


def exposure_of_promotion(service: Service, image_id: int) -> dict[str, float]:
    """Return the exposure of the unit that makes a superuser, which is held and then killed."""
    creation = threading.Thread(
        target=service.ask, args=("POST", "/instances", {"image_id": image_id, "superuser": True})
    )
    with configured(service, "allow_superuser = true\n"):
        with promoting("ExecStartPre=/usr/bin/sleep 3600"):
            creation.start()
            unit = await_promotion()
        found = exposure(unit)
        run("systemctl", "kill", "--signal=KILL", unit)
        creation.join()
    return {unit: found}


def test_no_service_is_exposed_more_than_its_bound(service: Service, backup: Path, instance: int) -> None:
    service.answer(instance, "SELECT 1")
    image_id = int(service.ask("GET", f"/instances/{instance}").json()["data"]["attributes"]["image_id"])
    answer = service.ask("POST", "/instances", {"image_id": image_id, "network": "direct"})
    assert answer.status_code == 201, answer.text
    found = exposure_of_promotion(service, image_id)
    being_made = service.create_image("SELECT pg_sleep(3600);")
    service.upload(being_made, backup)
    service.finalise(being_made, headers={"Prefer": "respond-async"})
    for job in ("extract", "finalise"):
        unit = f"draupnir-{job}-{being_made}.service"
        await_that(lambda unit=unit: processes(unit), f"{unit} runs")  # type: ignore[misc]
        run("systemctl", "kill", "--signal=STOP", unit)
        found |= {name: exposure(name) for name in loaded() | installed()}
        run("systemctl", "kill", "--signal=CONT", unit)
    service.destroy_image(being_made)
    service.destroy_instance(int(answer.json()["data"]["id"]))

    missing = [kind for kind in kinds() if not any(re.fullmatch(rf"{kind}\d+\.service", name) for name in found)]
    assert missing == [], "this test does not run a service of these kinds"
    bounds = {name: [most for pattern, most in BOUNDS.items() if re.fullmatch(pattern, name)] for name in found}
    assert [name for name, most in bounds.items() if len(most) != 1] == [], "each service has one bound"
    assert {name: level for name, level in found.items() if level > bounds[name][0]} == {}
