//! What a member holds, and what becomes of it by a question. It touches no file.

use controlplane_api::arbiter::Hex16;
use controlplane_api::trust::{TrustAnswer, TrustAsk, TrustStage};
use controlplane_core::authority::{Follow, Print, Standing, follow};
use mirror_core::admin::Problem;

use super::told;
use crate::trust::{
    Clusters, Identity, Lasting, Named, OwnKey, TrustError, belongs, check_endorsement,
    check_named, check_retirement, ends_at, now, only_certificate, print_of, signed_by,
};

/// What a member trusts and shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Holding {
    /// The certificates of one authority, or of the last and the next one.
    pub trusted: Vec<String>,
    /// What it shows; a witness may show a certificate that no authority signed, and that is not here.
    pub shown: Option<Identity>,
    /// A key that is ready for another certificate: a secret.
    pub ready: Option<String>,
    /// On a node: what it knows the witness by.
    pub witness: Option<String>,
}

impl std::fmt::Debug for Holding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holding")
            .field("trusted", &self.trusted)
            .field("shown", &self.shown)
            .field("is_ready", &self.ready.is_some())
            .field("witness", &self.witness)
            .finish()
    }
}

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The cluster.
    pub cluster: Hex16,
    /// The member.
    pub who: Named,
}

impl Holding {
    /// All that is trusted, as one text.
    pub fn authorities(&self) -> String {
        self.trusted.concat()
    }

    /// The prints of those who are trusted.
    ///
    /// # Errors
    /// [`TrustError`] if one is no certificate.
    pub fn prints(&self) -> Result<Vec<Print>, TrustError> {
        self.trusted.iter().map(|one| print_of(one)).collect()
    }

    fn signer(&self) -> Result<Option<Option<Print>>, TrustError> {
        let Some(shown) = &self.shown else {
            return Ok(Some(None));
        };
        for authority in &self.trusted {
            if signed_by(&shown.certificate, authority)? {
                return Ok(Some(Some(print_of(authority)?)));
            }
        }
        Ok(None)
    }

    /// Where the member stands.
    ///
    /// # Errors
    /// [`TrustError`] if that cannot be: nobody who is trusted signed what is shown, say.
    pub fn standing(&self) -> Result<Standing, TrustError> {
        let nowhere = |why: &str| TrustError::Content {
            what: "what is trusted here",
            why: why.to_string(),
        };
        let signer = self.signer()?;
        let signer = signer.ok_or_else(|| nowhere("it did not sign the certificate here"))?;
        Standing::of(&self.prints()?, signer).ok_or_else(|| {
            nowhere("there is one authority, or the last and the next one, and no more")
        })
    }

    /// As it is told.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn answer(&self) -> Result<TrustAnswer, TrustError> {
        let request = match &self.ready {
            Some(key) => Some(OwnKey::open(key)?.request()?),
            None => None,
        };
        Ok(TrustAnswer {
            trusted: self.prints()?.iter().map(|print| Hex16(print.0)).collect(),
            shown: self.signer()?.flatten().map(|print| Hex16(print.0)),
            certificate: self.shown.as_ref().map(|shown| shown.certificate.clone()),
            request,
            now: Some(now()),
            problem: None,
        })
    }

    /// What becomes of it by this question; `None`: nothing, it is so already.
    ///
    /// # Errors
    /// LS6180, LS6185, LS6188: why not.
    pub fn after(&self, whose: Whose, ask: &TrustAsk) -> Result<Option<Self>, Problem> {
        let mut next = match ask {
            TrustAsk::Look => return Ok(None),
            TrustAsk::Prepare if self.ready.is_some() => return Ok(None),
            TrustAsk::Prepare => self.clone(),
            TrustAsk::Trust {
                authority,
                endorsement,
            } => match self.trusting(whose, authority, endorsement)? {
                None => return Ok(None),
                Some(next) => next,
            },
            TrustAsk::Show {
                certificate,
                witness,
            } => match self.showing(whose, certificate)? {
                None => return Ok(None),
                Some(next) => next.knowing(whose, witness.as_deref())?,
            },
            TrustAsk::Settle {
                authority,
                retirement,
                witness,
            } => match self.settled(whose, *authority, retirement)? {
                None => return Ok(None),
                Some(next) => next.knowing(whose, witness.as_deref())?,
            },
        };
        if next.ready.is_none() && matches!(ask, TrustAsk::Prepare | TrustAsk::Trust { .. }) {
            next.ready = Some(OwnKey::generate().map_err(told::fault)?.pem());
        }
        Ok(Some(next))
    }

    fn trusting(
        &self,
        whose: Whose,
        authority: &str,
        endorsement: &str,
    ) -> Result<Option<Self>, Problem> {
        let own = self.standing().map_err(told::fault)?;
        // Exactly what is signed is what is stored.
        let authority = &only_certificate(authority).map_err(told::refused)?;
        let new = print_of(authority).map_err(told::refused)?;
        let wanted = match own {
            Standing::Settled(last) => Standing::Trusts { last, next: new },
            Standing::Trusts { last, .. } | Standing::Shows { last, .. } => {
                Standing::Trusts { last, next: new }
            }
        };
        match follow(own, wanted) {
            None => return Err(told::not_from_there()),
            Some(Follow::Stand) => return Ok(None),
            Some(Follow::Go) => {}
        }
        let [last] = self.trusted.as_slice() else {
            return Err(told::not_from_there());
        };
        let signature = unhex(endorsement).ok_or_else(told::not_understood)?;
        let ends = ends_at(authority).map_err(told::refused)?;
        told::ends_as_new(ends, now())?;
        check_endorsement((last, authority), whose.cluster, &signature).map_err(told::refused)?;
        // As a witness looks at it.
        Clusters::default()
            .admit(whose.cluster, authority)
            .map_err(told::refused)?;
        let mut next = self.clone();
        next.trusted.push(authority.clone());
        next.standing().map_err(told::refused)?;
        Ok(Some(next))
    }

    fn showing(&self, whose: Whose, certificate: &str) -> Result<Option<Self>, Problem> {
        let certificate = &only_certificate(certificate).map_err(told::refused)?;
        if self
            .shown
            .as_ref()
            .is_some_and(|shown| shown.certificate == *certificate)
        {
            return Ok(None);
        }
        let own = self.standing().map_err(told::fault)?;
        check_named(certificate, &self.authorities(), whose.cluster, whose.who)
            .map_err(told::refused)?;
        let key = self.ready.as_deref().map(OwnKey::open).transpose();
        let key = key.map_err(told::fault)?.ok_or_else(told::not_from_there)?;
        if !belongs(certificate, &key).map_err(told::refused)? {
            return Err(told::not_from_there());
        }
        let next = Self {
            shown: Some(Identity {
                certificate: certificate.clone(),
                key: key.pem(),
            }),
            ready: None,
            ..self.clone()
        };
        let wanted = next.standing().map_err(told::refused)?;
        match follow(own, wanted) {
            None => Err(told::not_from_there()),
            // Another certificate of the same authority.
            Some(Follow::Stand | Follow::Go) => Ok(Some(next)),
        }
    }

    fn settled(
        &self,
        whose: Whose,
        authority: Hex16,
        retirement: &str,
    ) -> Result<Option<Self>, Problem> {
        let own = self.standing().map_err(told::fault)?;
        match follow(own, Standing::Settled(Print(authority.0))) {
            None => return Err(told::not_from_there()),
            Some(Follow::Stand) => return Ok(None),
            Some(Follow::Go) => {}
        }
        let [last, next] = self.trusted.as_slice() else {
            return Err(told::not_from_there());
        };
        let signature = unhex(retirement).ok_or_else(told::not_understood)?;
        let last = print_of(last).map_err(told::fault)?;
        check_retirement((last, next), whose.cluster, &signature).map_err(told::refused)?;
        Ok(Some(Self {
            trusted: vec![next.clone()],
            ready: None,
            ..self.clone()
        }))
    }

    /// On a node: what the witness shows is what it is known by.
    fn knowing(mut self, whose: Whose, witness: Option<&str>) -> Result<Self, Problem> {
        let (Some(witness), Named::Node(_)) = (witness, whose.who) else {
            return Ok(self);
        };
        let witness = only_certificate(witness).map_err(told::refused)?;
        let authorities = self.authorities();
        check_named(&witness, &authorities, whose.cluster, Named::Witness)
            .map_err(told::refused)?;
        let which = |certificate: &str| Lasting::of(certificate, whose.cluster);
        let own = self.witness.as_deref().map(which).transpose();
        let new = which(&witness).map_err(told::refused)?;
        if own.map_err(told::fault)? != Some(new) {
            return Err(told::refused(
                "it is another witness than the one that is known here",
            ));
        }
        self.witness = Some(witness);
        Ok(self)
    }
}

/// Where a member stands that answered; `None`: nowhere.
pub fn standing_of(answer: &TrustAnswer) -> Option<Standing> {
    let trusted: Vec<Print> = answer.trusted.iter().map(|hex| Print(hex.0)).collect();
    Standing::of(&trusted, answer.shown.map(|hex| Print(hex.0)))
}

/// As operators are told.
pub fn stage(standing: Standing) -> TrustStage {
    match standing {
        Standing::Settled(_) => TrustStage::Settled,
        Standing::Trusts { .. } => TrustStage::TrustsNext,
        Standing::Shows { .. } => TrustStage::ShowsNext,
    }
}

/// Bytes as digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests;
