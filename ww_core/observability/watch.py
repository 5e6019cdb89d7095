"""The figures and the alerts of a whole deployment, put together from its parts."""

from __future__ import annotations

from ww_core.deployment import Deployment
from ww_core.observability.changes import AlertWatch
from ww_core.observability.metrics import Snapshot
from ww_core.observability.publish import deployment_snapshot
from ww_core.observability.webhook import Webhook


def figures_of(deployment: Deployment) -> Snapshot:
    """What all processes of the deployment measured, this one included. Raises BrokerUnavailable."""
    return deployment_snapshot(deployment.metrics, deployment.board)


def alert_watch(deployment: Deployment) -> AlertWatch:
    """The watch over the deployment's figures; it remembers in the graph store."""
    settings = deployment.settings
    url = settings.alert_webhook
    send = (
        None
        if url is None
        else Webhook(url.get_secret_value(), namespace=settings.namespace, timeout=settings.alert_webhook_timeout)
    )
    return AlertWatch(
        deployment.graph, settings, read=lambda: figures_of(deployment), clock=deployment.clock, send=send
    )
