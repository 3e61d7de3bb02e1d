//! What the stages serve by.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::datapath::listen::service::StreamService;
use crate::datapath::stream::StreamLimits;
use crate::tls::Identities;
use crate::wire::ChannelRange;

/// What the stages need to know; replaced as a whole.
#[derive(Clone, Default)]
pub(in crate::datapath) struct StageConfig {
    /// The certificates for TLS clients.
    pub(in crate::datapath) identities: Option<Identities>,
    pub(in crate::datapath) limits: StreamLimits,
    /// What each listener serves, by the address that it is bound to.
    pub(in crate::datapath) services: HashMap<SocketAddr, Arc<StreamService>>,
    /// What ChannelData begins with.
    pub(in crate::datapath) channels: ChannelRange,
}

impl StageConfig {
    /// Whether a listener for TLS can serve anybody: with a certificate, or by passing connections on.
    pub(in crate::datapath) fn can_serve_tls(&self, listener: SocketAddr) -> bool {
        let passes_on = |service: &Arc<StreamService>| !service.routes.is_empty();
        self.identities.is_some() || self.services.get(&listener).is_some_and(passes_on)
    }

    /// What the listener serves that is bound to this address: TURN, and TLS if there is a certificate, unless something else is
    /// set.
    pub(super) fn service(&self, listener: SocketAddr) -> Arc<StreamService> {
        match self.services.get(&listener) {
            Some(service) => service.clone(),
            None => {
                let tls = self.identities.is_some();
                Arc::new(StreamService { turn: true, tls, ..StreamService::default() })
            }
        }
    }
}
