//! Property tests: whatever is not exactly what a peer sealed is dropped, in each state of the
//! receiver. It is not delivered, changes nothing but a counter of rejected datagrams, and gets
//! no answer.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::Index};

use super::*;

/// Everything that a datagram could change, but for the counters.
fn state(of: &Transport) -> String {
    format!("{:?} {:?} {}", of.peers, of.outbox, of.nonces.position())
}

/// How far node 1 has come with node 0.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// Nothing was said yet.
    Fresh,
    /// Its challenge is on the way.
    Challenging,
    Connected,
    /// Connected to node 0 as it was before its restart.
    Stale,
}

const STANDINGS: [Standing; 4] =
    [Standing::Fresh, Standing::Challenging, Standing::Connected, Standing::Stale];

/// Node 1 as it stands, and a genuine datagram of each kind from node 0.
fn stand(standing: Standing) -> (Transport, Vec<Vec<u8>>) {
    let mut b = node(1, 1);
    let life = match standing {
        Standing::Fresh => 1,
        Standing::Challenging => {
            b.wake(T0);
            1
        }
        Standing::Connected | Standing::Stale => {
            let mut a = node(0, 1);
            a.wake(T0);
            talk(&mut a, &mut b, T0);
            if matches!(standing, Standing::Stale) { 2 } else { 1 }
        }
    };
    // A twin of node 1 takes part in the handshake, so that node 1 stays as it is.
    let (mut a, mut twin) = (node(0, life), node(1, 1));
    // A life never uses a counter twice, and node 1 may have heard of some.
    a.peers.get_mut(&1).expect("a peer").counter = SendCounter(1_000);
    a.wake(T0);
    twin.wake(T0);
    for challenge in drain(&mut twin, 0) {
        a.receive(&challenge, T0);
    }
    let mut said = drain(&mut a, 1);
    for datagram in &said {
        twin.receive(datagram, T0);
    }
    for answer in drain(&mut twin, 0) {
        a.receive(&answer, T0);
    }
    said.push(a.seal(1, b"a payload").expect("the twin has answered"));
    let kinds: BTreeSet<_> = said.iter().map(|datagram| datagram[1]).collect();
    assert_eq!(kinds.len(), 3, "a datagram of each kind");
    (b, said)
}

/// What is done to a genuine datagram.
#[derive(Clone, Debug)]
enum Forgery {
    Flip(Vec<(Index, u8)>),
    Truncate(Index),
    Extend(Vec<u8>),
    /// The header of one and the rest of another.
    Splice(Index),
    /// The header as it is, the rest made up.
    MakeUp(Vec<u8>),
}

fn forgeries() -> impl Strategy<Value = Forgery> {
    let bytes = |len| prop::collection::vec(any::<u8>(), len);
    prop_oneof![
        4 => prop::collection::vec((any::<Index>(), 0_u8..8), 1..4).prop_map(Forgery::Flip),
        2 => any::<Index>().prop_map(Forgery::Truncate),
        1 => bytes(1..64).prop_map(Forgery::Extend),
        1 => any::<Index>().prop_map(Forgery::Splice),
        1 => bytes(0..200).prop_map(Forgery::MakeUp),
    ]
}

fn forge(said: &[Vec<u8>], which: Index, forgery: &Forgery) -> Vec<u8> {
    let genuine = which.get(said).clone();
    match forgery {
        Forgery::Flip(bits) => {
            let mut bytes = genuine;
            for (index, bit) in bits {
                let index = index.index(bytes.len());
                bytes[index] ^= 1 << bit;
            }
            bytes
        }
        Forgery::Truncate(len) => genuine[..len.index(genuine.len())].to_vec(),
        Forgery::Extend(more) => [genuine.as_slice(), more].concat(),
        Forgery::Splice(other) => [&genuine[..HEADER_LEN], &other.get(said)[HEADER_LEN..]].concat(),
        Forgery::MakeUp(rest) => [&genuine[..HEADER_LEN], rest.as_slice()].concat(),
    }
}

/// Requires that node 1 drops these bytes and that they change nothing.
fn dropped(b: &mut Transport, bytes: &[u8]) -> Result<(), TestCaseError> {
    let (before, counters) = (state(b), b.counters().clone());
    let outcome = b.receive(bytes, T0.plus(CHALLENGE_GAP_MIN * 30));
    prop_assert!(matches!(outcome, Received::Rejected { .. }), "{:?}", outcome);
    prop_assert_eq!(state(b), before);
    let expected = {
        let mut expected = counters;
        if let Received::Rejected { reason, .. } = outcome {
            expected.rejected[reason as usize] += 1;
        }
        expected
    };
    prop_assert_eq!(b.counters(), &expected, "counted as {:?} and nothing else", outcome);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn what_was_tampered_with_changes_nothing(
        standing in prop::sample::select(&STANDINGS[..]),
        which in any::<Index>(),
        forgery in forgeries(),
    ) {
        let (mut b, said) = stand(standing);
        let bytes = forge(&said, which, &forgery);
        // Flips may cancel out, and a splice may put together what belongs together.
        prop_assume!(!said.contains(&bytes));
        dropped(&mut b, &bytes)?;
    }

    #[test]
    fn arbitrary_bytes_change_nothing(
        standing in prop::sample::select(&STANDINGS[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..1500),
        // Bytes that look genuine as far as one can see without a key.
        opening in prop::option::of((1_u8..4, 0_u8..3)),
    ) {
        let (mut b, _) = stand(standing);
        let mut bytes = bytes;
        if let (Some((kind, key)), Some(first)) = (opening, bytes.first_chunk_mut::<5>()) {
            *first = [WIRE_VERSION, kind, key, 0, 1];
        }
        dropped(&mut b, &bytes)?;
    }
}

#[test]
fn what_is_genuine_is_believed_wherever_the_receiver_stands() {
    // Else the properties above would hold of a transport that drops everything.
    for standing in STANDINGS {
        let (mut b, said) = stand(standing);
        let before = state(&b);
        let challenge = said.iter().find(|bytes| bytes[1] == Kind::Challenge as u8).expect("there is one");
        assert_eq!(b.receive(challenge, T0), Received::Handshake, "{standing:?}");
        assert_ne!(state(&b), before, "{standing:?}: it answers");
    }
}
