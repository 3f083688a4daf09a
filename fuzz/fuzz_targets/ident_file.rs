#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| pgweir::fuzzing::ident_file(data));
