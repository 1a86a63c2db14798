//! The stages of a packet's way, for whoever measures where the time goes. The switch only
//! tells its sink when one begins; it reads no clock.

/// Declares the stages: variant, name, sentence.
macro_rules! stages {
    ($($variant:ident = $name:literal, $what:literal;)*) => {
        /// A stage of a packet's way.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Stage { $(#[doc = $what] $variant,)* }

        impl Stage {
            /// All, in the order of a packet's way.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in commands.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

stages! {
    Receive = "receive", "Frames are taken from a port. Whoever has the ports tells of it.";
    Parse = "parse", "Signatures are read, and keys where they are needed.";
    Session = "session", "Sessions are looked up.";
    Megaflow = "megaflow", "Megaflows are looked up.";
    Translate = "translate", "The tables are walked, and the caches learn what came of it.";
    Track = "track", "The connection tracker is asked.";
    Execute = "execute", "Programs are carried out.";
    Transmit = "transmit", "Copies go to their ports. Whoever has the ports tells of it.";
}
