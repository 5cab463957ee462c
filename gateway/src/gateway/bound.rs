//! What a gateway is bound to: every listener that its configuration names, made of sockets that somebody else has bound where there
//! are any.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::{GatewayError, Terminators};
use crate::admin;
use crate::config::{Config, HardserverAddress};
use crate::handover::Held;
use crate::listen::accept::{Binder, Listener, SocketAccess, SocketFile, UnixSocket};
use crate::listen::inherited::{Inherited, Role};

/// Where a gateway listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The gRPC front end, where it is on.
    pub grpc: Option<SocketAddr>,
    /// The hardserver front ends.
    pub hardserver: Vec<HardserverAddress>,
    /// The admin port, where it is on.
    pub admin: Option<SocketAddr>,
    /// Where changes come in, where that is not the admin port.
    pub management: Option<HardserverAddress>,
}

/// What every listener is bound to.
pub(super) struct Bound {
    pub(super) listeners: Vec<Listener>,
    pub(super) addresses: Addresses,
    pub(super) admin: Vec<admin::Listener>,
    /// What another gateway may have, and where it asks for it.
    pub(super) handover: Option<(Vec<Held>, UnixSocket)>,
    /// How many sockets another gateway had bound.
    pub(super) inherited: u64,
    pub(super) files: Files,
}

/// The files of Unix sockets.
#[derive(Clone, Default)]
pub(super) struct Files {
    ours: Vec<Arc<SocketFile>>,
    /// Of sockets that another gateway listens at, and this one does not.
    unwanted: Vec<Arc<SocketFile>>,
}

impl Files {
    /// Whoever had them has ended. Those that nobody listens at any more go.
    pub(super) fn claim(&self) {
        for file in self.ours.iter().chain(&self.unwanted) {
            file.claim();
        }
        self.unwanted.iter().for_each(|file| file.remove());
    }

    /// Removes those that are this gateway's.
    pub(super) fn remove(&self) {
        self.ours.iter().for_each(|file| file.remove());
    }

    /// The first that is gone, or another's, so that nobody can connect.
    pub(super) fn lost(&self) -> Option<&Path> {
        self.ours.iter().find(|file| !file.has_name()).map(|file| file.path())
    }
}

/// Begins to listen wherever the configuration says. `sets_access`: as [`Binder`] has it.
pub(super) async fn bind(
    config: &Config,
    inherited: Inherited,
    terminators: &Terminators,
    sets_access: bool,
) -> Result<Bound, GatewayError> {
    let access = SocketAccess { mode: config.listen.socket_mode, group: config.listen.socket_group };
    let held = config.listen.handover.as_ref().map(|_| Vec::new());
    let mut binder = Binder { inherited, access, sets_access, files: Vec::new(), held };
    let mut listeners = Vec::new();
    let mut addresses = Addresses { grpc: None, hardserver: Vec::new(), admin: None, management: None };
    if let Some(address) = config.listen.grpc {
        let (listener, address) = binder.tcp(Role::Grpc, address).await?;
        listeners.push(Listener::Grpc(listener, terminators.grpc.clone()));
        addresses.grpc = Some(address);
    }
    for address in &config.listen.hardserver {
        let (listener, address) = binder.hardserver(address, terminators.hardserver.as_ref()).await?;
        listeners.push(listener);
        addresses.hardserver.push(address);
    }
    let mut admin = Vec::new();
    if let Some(address) = config.listen.admin {
        let (listener, address) = binder.tcp(Role::Admin, address).await?;
        admin.push(admin::Listener::Plain { listener, takes_changes: config.listen.management.is_none() });
        addresses.admin = Some(address);
    }
    match (&config.listen.management, &terminators.management) {
        (Some(HardserverAddress::Unix(path)), _) => {
            admin.push(admin::Listener::Unix(binder.unix(Role::Management, path)?));
            addresses.management = Some(HardserverAddress::Unix(path.clone()));
        }
        (Some(HardserverAddress::Tls(address)), Some(terminator)) => {
            let (listener, address) = binder.tcp(Role::Management, *address).await?;
            admin.push(admin::Listener::Tls(listener, terminator.clone()));
            addresses.management = Some(HardserverAddress::Tls(address));
        }
        // The configuration has neither without the other, and no plain TCP here.
        (Some(HardserverAddress::Tls(_) | HardserverAddress::Tcp(_)) | None, _) => {}
    }
    let handover = match &config.listen.handover {
        Some(path) => Some(binder.unix(Role::Handover, path)?),
        None => None,
    };
    let inherited = binder.inherited.taken_over();
    let files = Files { ours: binder.files, unwanted: Binder::unwanted(binder.inherited)? };
    Ok(Bound { listeners, addresses, admin, handover: binder.held.zip(handover), inherited, files })
}
