//! Every cell of the table of verdicts, by a frame of each class.

use super::*;

#[test]
fn every_cell_of_the_table_is_what_happens() {
    for &class in CLASSES {
        let mut frame = match class {
            Class::ArpRequest | Class::ArpRequestElsewhere => {
                ethernet(0, 0x0806, &arp_packet(1, CLIENT_MAC, CLIENT, VIP))
            }
            Class::ArpClaim | Class::ArpClaimElsewhere => {
                ethernet(0, 0x0806, &arp_packet(2, PEER_MAC, VIP, VIP))
            }
            Class::ArpOut | Class::ArpOutElsewhere => {
                ethernet(0, 0x0806, &arp_packet(2, OUR_MAC, VIP, CLIENT))
            }
            Class::IpIn | Class::IpLocal | Class::IpLocalIn => ethernet(0, 0x0800, &ipv4(CLIENT, VIP)),
            Class::IpOut => ethernet(0, 0x0800, &ipv4(VIP, CLIENT)),
            Class::MacIn => {
                let mut frame = ethernet(0, 0x0800, &ipv4(CLIENT, BEYOND));
                frame[..6].copy_from_slice(&VIRTUAL_MAC);
                frame
            }
            Class::MacOut => {
                let mut frame = ethernet(0, 0x0800, &ipv4(OTHER, CLIENT));
                frame[6..12].copy_from_slice(&VIRTUAL_MAC);
                frame
            }
            Class::IpForward => to_us(ethernet(0, 0x0800, &ipv4(CLIENT, BEYOND))),
        };
        // An open fence writes its answer over the request, so it comes last.
        for fence in FENCES.into_iter().rev() {
            let mut fake = maps(fence);
            if class == Class::IpForward {
                fake.gateways = Gateways::of([VIP]);
                fake.routed = Some(BEYOND);
            }
            if class == Class::MacIn || class == Class::MacOut {
                fake.virtual_mac = Some(VIRTUAL_MAC);
            }
            if class == class.elsewhere() {
                // IP packets don't ask whose interface it is.
                fake.home = IFINDEX + 1;
            }
            let verdict = match class {
                Class::ArpRequest | Class::ArpClaim | Class::IpIn | Class::IpForward | Class::MacIn => {
                    run_in(&fake, &mut frame)
                }
                Class::MacOut => virtual_mac::leaves(&view(&mut frame), &fake, IFINDEX),
                Class::ArpRequestElsewhere | Class::ArpClaimElsewhere => run_in(&fake, &mut frame),
                Class::ArpOut | Class::IpOut | Class::ArpOutElsewhere => {
                    egress(&view(&mut frame), &fake, IFINDEX)
                }
                Class::IpLocal => local(&view(&mut frame), &fake),
                Class::IpLocalIn => local_in(VIP, &fake),
            };
            let ruling = ruling(class, fence);
            assert_eq!(verdict, ruling.verdict, "{class:?} {fence:?}");
            let counted = Vec::from_iter(ruling.counter.map(|counter| (SLOT, counter)));
            assert_eq!(*fake.counted.borrow(), counted, "{class:?} {fence:?}");
            let told: Vec<_> = fake.events.borrow().iter().map(|event| event.kind).collect();
            // The holder is told of the client, as often as that is due.
            let is_told = class == Class::MacIn && ruling.verdict == Verdict::Drop;
            let event = ruling.event.or(is_told.then_some(EventKind::Stale));
            assert_eq!(told, Vec::from_iter(event.map(|kind| kind as u32)), "{class:?} {fence:?}");
        }
    }
}
