//! A small assembler for BPF: enough for straight-line programs with forward jumps.
//!
//! Encoding: RFC 9669 §4. Offsets of jumps are patched when their label is placed, so a
//! program reads from top to bottom.

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
}

/// Width of a load.
#[derive(Debug, Clone, Copy)]
pub(super) enum Width {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
}

/// One instruction as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Insn {
    code: u8,
    regs: u8,
    off: i16,
    imm: i32,
}

/// A place to jump to, placed later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label(usize);

const JNE32: u8 = 0x56;
const JEQ32: u8 = 0x16;
const JGT_REG: u8 = 0x2d;
const LDX_MEM: u8 = 0x61;
const LD_IMM64: u8 = 0x18;
const MOV_IMM: u8 = 0xb7;
const MOV_REG: u8 = 0xbf;
const ADD_IMM: u8 = 0x07;
const AND_IMM: u8 = 0x57;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Source "register" of a 64-bit load that stands for a map.
const PSEUDO_MAP_FD: u8 = 1;

/// A program being written.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    insns: Vec<Insn>,
    /// (instruction, label) of each jump.
    jumps: Vec<(usize, Label)>,
    /// Where each label is.
    places: Vec<Option<usize>>,
}

impl Assembler {
    /// A label, to be placed after the jumps to it.
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Puts a label here.
    pub(super) fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.insns.len());
    }

    /// `dst = *(base + off)`
    pub(super) fn load(&mut self, width: Width, dst: Reg, base: Reg, off: i16) {
        self.push(LDX_MEM | width as u8, dst, base as u8, off, 0);
    }

    /// `dst = src`
    pub(super) fn copy(&mut self, dst: Reg, src: Reg) {
        self.push(MOV_REG, dst, src as u8, 0, 0);
    }

    /// `dst = imm`
    pub(super) fn set(&mut self, dst: Reg, imm: i32) {
        self.push(MOV_IMM, dst, 0, 0, imm);
    }

    /// `dst += imm`
    pub(super) fn add(&mut self, dst: Reg, imm: i32) {
        self.push(ADD_IMM, dst, 0, 0, imm);
    }

    /// `dst &= imm`
    pub(super) fn and(&mut self, dst: Reg, imm: i32) {
        self.push(AND_IMM, dst, 0, 0, imm);
    }

    /// `dst = map`
    pub(super) fn set_map(&mut self, dst: Reg, map_fd: i32) {
        self.push(LD_IMM64, dst, PSEUDO_MAP_FD, 0, map_fd);
        self.push(0, Reg::R0, 0, 0, 0);
    }

    /// Jumps if `a > b`.
    pub(super) fn jump_if_greater(&mut self, a: Reg, b: Reg, to: Label) {
        self.jump(JGT_REG, a, b as u8, 0, to);
    }

    /// Jumps if the lower half of `a` is not `imm`.
    pub(super) fn jump_if_not(&mut self, a: Reg, imm: u32, to: Label) {
        self.jump(JNE32, a, 0, imm.cast_signed(), to);
    }

    /// Jumps if the lower half of `a` is `imm`.
    pub(super) fn jump_if(&mut self, a: Reg, imm: u32, to: Label) {
        self.jump(JEQ32, a, 0, imm.cast_signed(), to);
    }

    /// Calls a helper function of the kernel.
    pub(super) fn call(&mut self, helper: i32) {
        self.push(CALL, Reg::R0, 0, 0, helper);
    }

    /// Ends with R0.
    pub(super) fn exit(&mut self) {
        self.push(EXIT, Reg::R0, 0, 0, 0);
    }

    /// The finished program. `None`: a label was not placed, or is out of reach.
    pub(super) fn finish(mut self) -> Option<Vec<Insn>> {
        for (idx, label) in self.jumps {
            let distance = self.places[label.0]?.checked_sub(idx + 1)?;
            self.insns[idx].off = i16::try_from(distance).ok()?;
        }
        Some(self.insns)
    }

    fn jump(&mut self, code: u8, a: Reg, src: u8, imm: i32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(code, a, src, 0, imm);
    }

    fn push(&mut self, code: u8, dst: Reg, src: u8, off: i16, imm: i32) {
        self.insns.push(Insn { code, regs: dst as u8 | src << 4, off, imm });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_land_on_their_label() {
        let mut asm = Assembler::default();
        let out = asm.label();
        asm.jump_if(Reg::R1, 7, out);
        asm.set(Reg::R0, 1);
        asm.exit();
        asm.place(out);
        asm.set(Reg::R0, 2);
        asm.exit();
        let insns = asm.finish().unwrap();
        assert_eq!(insns[0], Insn { code: 0x16, regs: 1, off: 2, imm: 7 });
        assert_eq!(insns.len(), 5);
    }

    #[test]
    fn an_unplaced_or_backward_label_is_refused() {
        let mut asm = Assembler::default();
        let label = asm.label();
        asm.jump_if(Reg::R1, 7, label);
        assert!(asm.finish().is_none());

        let mut asm = Assembler::default();
        let label = asm.label();
        asm.place(label);
        asm.jump_if(Reg::R1, 7, label);
        assert!(asm.finish().is_none());
    }
}
