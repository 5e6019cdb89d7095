"""Which runtime a deployment has."""

from __future__ import annotations

from ww_core.deployment import Deployment
from ww_workers.runtime import Runtime


def runtime_of(deployment: Deployment) -> Runtime:
    """The process's runtime of this deployment; the deployment's doorbell is its doorbell from then on."""
    return Runtime.of(deployment, _make)


def _make(deployment: Deployment) -> Runtime:
    if deployment.settings.redis_url is None:
        from ww_workers.local import LocalRuntime

        return LocalRuntime(deployment)
    from ww_workers.remote import CeleryRuntime

    return CeleryRuntime(deployment)
