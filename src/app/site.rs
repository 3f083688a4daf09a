//! The pages of the HTTP server, put together.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    lifecycle::Phase,
    telemetry::{
        Registry,
        http::{Answer, Ask, Guard, Site},
    },
};

/// What there is to see of a pooler over HTTP.
pub(super) fn site(registry: &Registry, phase: watch::Receiver<Phase>, guard: Arc<Guard>) -> Site {
    let registry = registry.clone();
    let metrics = move |ask: Ask| {
        let (content_type, text) = registry.render(ask.accept.as_deref());
        Answer::ok(content_type, text)
    };
    Site::new(phase, guard).with("/metrics", Arc::new(metrics))
}
