#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| target(input));

fn target(input: &[u8]) {
    let (_, target) = anvil::fuzz::TARGETS.iter().find(|(name, _)| *name == "grpc_messages").expect("it is one of them");
    target(input);
}
