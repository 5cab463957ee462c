//! What listeners, certificates and rules have to be to each other, so that no door stands open that nobody meant to open.

use std::net::IpAddr;

use super::document::Document;
use super::problem::Gathered;
use super::tls::{ClientCertificates, Tls};
use super::value::{HardserverAddress, Listen};
use crate::access::Rules;

/// Where callers and operators come in, by what.
pub(super) struct Doors<'a> {
    pub(super) listen: &'a Listen,
    pub(super) tls: Option<&'a Tls>,
    pub(super) management_tls: Option<&'a Tls>,
    pub(super) rules: &'a Rules,
}

impl Doors<'_> {
    /// Notes what lets in more than anybody can have meant.
    pub(super) fn check(&self, document: &Document, gathered: &mut Gathered) {
        self.network(document, gathered);
        self.management(document, gathered);
    }

    /// From the network nobody may come in who shows nothing, where there are no rules that say what such callers may do.
    fn network(&self, document: &Document, gathered: &mut Gathered) {
        if !self.rules.is_empty() || self.tls.is_some_and(asks_all) {
            return;
        }
        let grpc = self.listen.grpc.iter().map(|address| ("grpc", address.ip()));
        let hardserver = self.listen.hardserver.iter().filter_map(|address| Some(("hardserver", ip(address)?)));
        let Some((key, _)) = grpc.chain(hardserver).find(|(_, ip)| !ip.is_loopback()) else { return };
        let section = document.one("listen");
        gathered.add(
            section.given(key).unwrap_or(&section.place),
            section.path(key),
            "lets in everybody who reaches it: no certificate is required, and there is no [[permission]]",
            "write [[permission]] rules, or tls.client_ca = \"FILE\" and client_certificates = \"required\"",
        );
    }

    /// Operators show a certificate, by another authority than callers'.
    fn management(&self, document: &Document, gathered: &mut Gathered) {
        let Some(management) = self.management_tls else { return };
        let section = document.one("management_tls");
        let place = section.given("client_ca").unwrap_or(&section.place);
        if !asks_all(management) {
            gathered.add(
                place,
                section.path("client_ca"),
                "does not make operators show a certificate",
                "write client_ca = \"FILE\" (`seeway keygen DIR --tls` makes admin-ca.pem), and no client_certificates",
            );
        }
        let authorities = |tls: &Tls| tls.authorities().unwrap_or_default();
        let of_callers = self.tls.map(authorities).unwrap_or_default();
        if authorities(management).iter().any(|authority| of_callers.contains(authority)) {
            gathered.add(
                place,
                section.path("client_ca"),
                "has an authority of tls.client_ca: who may send jobs could manage the gateway",
                "give operators an authority of their own; `seeway keygen DIR --tls` makes one",
            );
        }
    }
}

fn asks_all(tls: &Tls) -> bool {
    tls.client_ca.is_some() && tls.client_certificates == ClientCertificates::Required
}

fn ip(address: &HardserverAddress) -> Option<IpAddr> {
    match address {
        HardserverAddress::Tcp(address) | HardserverAddress::Tls(address) => Some(address.ip()),
        HardserverAddress::Unix(_) => None,
    }
}
