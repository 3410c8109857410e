//! Who may come in: tokens, wrong tries, time. No clock, no socket.

use std::net::SocketAddr;
use std::time::Instant;

use super::error::JoinError;
use super::home::Guest;
use super::token::Secret;

/// So many wrong tokens close the door.
pub const TRIES_MAX: u32 = 5;
/// Tokens of a guest that are remembered as used: each followed on a right one.
const USED_MAX: usize = 64;

struct Invited {
    guest: Guest,
    /// The image of the token that works; `None`: its bearer is inside, or has joined.
    token: Option<blake3::Hash>,
    used: Vec<blake3::Hash>,
    /// Who came with the token that was used last.
    bearer: Option<SocketAddr>,
    joined: bool,
    /// Whoever came got the cluster's key, and did not come to the end: it gets no new token.
    lost: bool,
}

impl Invited {
    fn why_used(&self, image: blake3::Hash) -> JoinError {
        match self.bearer {
            Some(address) if !self.lost && self.used.last() == Some(&image) => {
                let guest = self.guest.to_string();
                JoinError::TokenInside { guest, address }
            }
            Some(_) | None => JoinError::UsedToken,
        }
    }
}

/// The door of an invitation.
pub(super) struct Door {
    invited: Vec<Invited>,
    wrong: u32,
    over: Instant,
}

impl Door {
    /// Open until `over`, for nobody yet.
    pub(super) fn new(over: Instant) -> Self {
        Self {
            invited: Vec::new(),
            wrong: 0,
            over,
        }
    }

    /// The guest may come in with this, and with nothing that it had before.
    pub(super) fn expect(&mut self, guest: &Guest, secret: &Secret) {
        let image = Some(secret.image());
        match self.find(guest) {
            Some(invited) => {
                invited.used.extend(invited.token.take());
                invited.token = image;
                invited.bearer = None;
            }
            None => self.invited.push(Invited {
                guest: guest.clone(),
                token: image,
                used: Vec::new(),
                bearer: None,
                joined: false,
                lost: false,
            }),
        }
    }

    fn find(&mut self, guest: &Guest) -> Option<&mut Invited> {
        let mut all = self.invited.iter_mut();
        all.find(|invited| invited.guest == *guest)
    }

    /// Somebody knocks. A right token is used up; every image is compared, and each in constant time.
    pub(super) fn knock(
        &mut self,
        secret: &Secret,
        from: SocketAddr,
        now: Instant,
    ) -> Result<Guest, JoinError> {
        self.is_open(now)?;
        let image = secret.image();
        let (mut right, mut used) = (None, None);
        for (place, invited) in self.invited.iter().enumerate() {
            if invited.token == Some(image) {
                right = Some(place);
            }
            for old in &invited.used {
                if *old == image {
                    used = Some(place);
                }
            }
        }
        if let Some(place) = right {
            let invited = &mut self.invited[place];
            invited.used.extend(invited.token.take());
            invited.bearer = Some(from);
            if invited.used.len() > USED_MAX {
                invited.used.remove(0);
            }
            return Ok(invited.guest.clone());
        }
        if let Some(place) = used {
            return Err(self.invited[place].why_used(image));
        }
        self.wrong += 1;
        let left = TRIES_MAX - self.wrong;
        if left == 0 {
            return Err(JoinError::Closed { tries: TRIES_MAX });
        }
        Err(JoinError::WrongToken { left })
    }

    /// Whether anybody may come in.
    pub(super) fn is_open(&self, now: Instant) -> Result<(), JoinError> {
        if self.wrong >= TRIES_MAX {
            return Err(JoinError::Closed { tries: TRIES_MAX });
        }
        if now >= self.over {
            let missing = Vec::new();
            return Err(JoinError::Over { missing });
        }
        Ok(())
    }

    pub(super) fn has_joined(&mut self, guest: &Guest) {
        if let Some(invited) = self.find(guest) {
            invited.joined = true;
            invited.bearer = None;
        }
    }

    /// Its bearer has the cluster's key, and did not come to the end.
    pub(super) fn is_lost(&mut self, guest: &Guest) {
        if let Some(invited) = self.find(guest) {
            invited.lost = true;
        }
    }

    /// The one of whom that is so, and who came in its name.
    pub(super) fn lost(&self) -> Option<(Guest, SocketAddr)> {
        let lost = self.invited.iter().find(|invited| invited.lost)?;
        Some((lost.guest.clone(), lost.bearer?))
    }

    /// Whether anybody may still join.
    pub(super) fn awaits(&self) -> bool {
        let mut all = self.invited.iter();
        all.any(|invited| !invited.joined && !invited.lost)
    }

    /// Who is invited and has not joined.
    pub(super) fn missing(&self) -> Vec<Guest> {
        let missing = self.invited.iter().filter(|invited| !invited.joined);
        missing.map(|invited| invited.guest.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn secret(byte: u8) -> Secret {
        Secret([byte; 16])
    }

    fn door(now: Instant) -> Door {
        let mut door = Door::new(now + HOUR);
        door.expect(&Guest::Witness, &secret(1));
        door
    }

    #[test]
    fn a_token_works_once_and_a_new_one_once_more() {
        let now = Instant::now();
        let mut door = door(now);
        assert_eq!(
            door.knock(&secret(1), FROM, now).expect("in"),
            Guest::Witness
        );
        let again = door.knock(&secret(1), FROM, now).expect_err("inside");
        assert!(
            matches!(again, JoinError::TokenInside { address: FROM, .. }),
            "{again}"
        );
        door.expect(&Guest::Witness, &secret(2));
        assert!(door.knock(&secret(2), FROM, now).is_ok());
        door.has_joined(&Guest::Witness);
        for old in [1, 2] {
            let again = door.knock(&secret(old), FROM, now).expect_err("used");
            assert!(matches!(again, JoinError::UsedToken), "{again}");
        }
    }

    #[test]
    fn a_token_that_was_replaced_does_not_work() {
        let now = Instant::now();
        let mut door = door(now);
        door.expect(&Guest::Witness, &secret(2));
        assert!(door.knock(&secret(1), FROM, now).is_err());
        assert!(door.knock(&secret(2), FROM, now).is_ok());
    }

    #[test]
    fn five_wrong_tokens_close_the_door_for_the_right_one() {
        let now = Instant::now();
        let mut door = door(now);
        for left in (1..5).rev() {
            let wrong = door.knock(&secret(9), FROM, now).expect_err("wrong");
            assert!(
                matches!(wrong, JoinError::WrongToken { left: l } if l == left),
                "{wrong}"
            );
        }
        for byte in [9, 1] {
            let closed = door.knock(&secret(byte), FROM, now).expect_err("closed");
            assert_eq!(closed.code(), "LS6029");
        }
    }

    #[test]
    fn after_its_time_no_token_works_and_no_try_is_counted() {
        let now = Instant::now();
        let mut door = door(now);
        let before = now + HOUR - Duration::from_nanos(1);
        for byte in [1, 9, 9, 9, 9, 9, 9] {
            let over = door
                .knock(&secret(byte), FROM, now + HOUR)
                .expect_err("over");
            assert_eq!(over.code(), "LS6030");
        }
        assert!(door.knock(&secret(1), FROM, before).is_ok());
    }
}
