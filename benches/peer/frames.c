// Frames for the peer of a veth, more of them than a switch can take: an XDP program, run by the kernel
// over frames of its own (BPF_PROG_TEST_RUN with live frames), redirects each of them to the interface.
//
//     frames INTERFACE TO_MAC SECONDS RATE
//
// UDP in 60 bytes, 1024 source ports in turn, as many as can be (RATE 0) or so many in a second. The other
// side's interface must take frames from XDP (it has a program, or GRO is on). Prints how many were sent,
// and in how many seconds.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define FRAME_LEN 60
#define N_FLOWS 1024
/// A pause is made up for as far as this many nanoseconds; beyond, a burst would be no even rate.
#define MAX_LAG 50000

#define LIVE_FRAMES (1U << 1)

struct state {
	uint64_t next;     // when the next frame is due
	uint64_t interval; // between two frames; 0: none
	uint64_t n_sent;
};

#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})
#define MOV(d, s) INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define SET(d, i) INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define ADD(d, i) INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define LOAD(size, d, s, o) INSN(BPF_LDX | BPF_MEM | (size), d, s, o, 0)
#define STORE(size, d, s, o) INSN(BPF_STX | BPF_MEM | (size), d, s, o, 0)
#define CALL(f) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, f)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof *attr);
}

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static int make_map(const struct state *state)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = sizeof *state, .max_entries = 1};
	int fd = bpf(BPF_MAP_CREATE, &attr);
	if (fd < 0)
		fail("bpf(BPF_MAP_CREATE)");
	uint32_t key = 0;
	union bpf_attr update = {.map_fd = fd, .key = (uintptr_t)&key, .value = (uintptr_t)state};
	if (bpf(BPF_MAP_UPDATE_ELEM, &update))
		fail("bpf(BPF_MAP_UPDATE_ELEM)");
	return fd;
}

static uint64_t n_sent(int map)
{
	struct state state;
	uint32_t key = 0;
	union bpf_attr attr = {.map_fd = map, .key = (uintptr_t)&key, .value = (uintptr_t)&state};
	if (bpf(BPF_MAP_LOOKUP_ELEM, &attr))
		fail("bpf(BPF_MAP_LOOKUP_ELEM)");
	return state.n_sent;
}

static int load(int map, int ifindex)
{
	struct bpf_insn insns[] = {
		LOAD(BPF_W, 7, 1, 0), // data
		LOAD(BPF_W, 8, 1, 4), // data_end
		MOV(2, 7),
		ADD(2, 42),
		INSN(BPF_JMP | BPF_JGT | BPF_X, 2, 8, 29, 0), // too short: drop
		INSN(BPF_ST | BPF_MEM | BPF_W, 10, 0, -4, 0),
		INSN(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, map),
		INSN(0, 0, 0, 0, 0),
		MOV(2, 10),
		ADD(2, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 22, 0), // no state: drop
		MOV(9, 0),
		LOAD(BPF_DW, 6, 9, 8),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, 6, 0, 8, 0), // no interval: send
		CALL(BPF_FUNC_ktime_get_ns),
		LOAD(BPF_DW, 1, 9, 0),
		INSN(BPF_JMP | BPF_JLT | BPF_X, 0, 1, 16, 0), // not due: drop
		ADD(0, -MAX_LAG),
		INSN(BPF_JMP | BPF_JGT | BPF_X, 1, 0, 1, 0),
		MOV(1, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_X, 1, 6, 0, 0),
		STORE(BPF_DW, 9, 1, 0),
		// send
		LOAD(BPF_DW, 3, 9, 16),
		ADD(3, 1),
		STORE(BPF_DW, 9, 3, 16),
		INSN(BPF_ALU64 | BPF_AND | BPF_K, 3, 0, 0, N_FLOWS - 1),
		INSN(BPF_ALU64 | BPF_OR | BPF_K, 3, 0, 0, 0x8000),
		INSN(BPF_ALU | BPF_END | BPF_TO_BE, 3, 0, 0, 16),
		STORE(BPF_H, 7, 3, 34),
		SET(1, ifindex),
		SET(2, 0),
		CALL(BPF_FUNC_redirect),
		EXIT,
		// drop
		SET(0, XDP_DROP),
		EXIT,
	};
	static char log[65536];
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_XDP,
		.insns = (uintptr_t)insns,
		.insn_cnt = sizeof insns / sizeof *insns,
		.license = (uintptr_t)"Apache-2.0",
		.log_buf = (uintptr_t)log,
		.log_size = sizeof log,
		.log_level = 1,
	};
	int fd = bpf(BPF_PROG_LOAD, &attr);
	if (fd < 0) {
		fputs(log, stderr);
		fail("bpf(BPF_PROG_LOAD)");
	}
	return fd;
}

static void make_frame(uint8_t *frame, const char *to)
{
	unsigned mac[6];
	if (sscanf(to, "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) {
		errno = EINVAL;
		fail(to);
	}
	for (int i = 0; i < 6; i++)
		frame[i] = mac[i];
	static const uint8_t from[] = {2, 0, 0, 0, 0, 0x77, 8, 0};
	memcpy(frame + 6, from, sizeof from);
	uint8_t *ip = frame + 14, *udp = frame + 34;
	static const uint8_t header[] = {0x45, 0, 0, FRAME_LEN - 14, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 1, 11, 10, 0, 1, 12};
	memcpy(ip, header, sizeof header);
	uint32_t sum = 0;
	for (int i = 0; i < 20; i += 2)
		sum += ip[i] << 8 | ip[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	ip[10] = sum >> 8;
	ip[11] = sum;
	udp[0] = 0x80;
	udp[3] = 9;
	udp[5] = FRAME_LEN - 34;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

static void over(int signal)
{
	(void)signal;
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fputs("frames INTERFACE TO_MAC SECONDS RATE\n", stderr);
		return 2;
	}
	int ifindex = if_nametoindex(argv[1]);
	if (!ifindex)
		fail(argv[1]);
	uint8_t frame[FRAME_LEN] = {0};
	make_frame(frame, argv[2]);
	double seconds = atof(argv[3]), rate = atof(argv[4]);
	struct state state = {.next = now() * 1e9, .interval = rate > 0 ? 1e9 / rate : 0};
	int map = make_map(&state), program = load(map, ifindex);

	// The run goes on until a signal comes.
	struct sigaction action = {.sa_handler = over};
	sigaction(SIGALRM, &action, NULL);
	struct itimerval timer = {.it_value = {.tv_sec = seconds, .tv_usec = (seconds - (long)seconds) * 1e6},
				  .it_interval = {.tv_usec = 10000}};
	setitimer(ITIMER_REAL, &timer, NULL);
	double start = now();
	do {
		struct xdp_md context = {.data_end = FRAME_LEN};
		union bpf_attr attr = {.test = {
			.prog_fd = program,
			.data_in = (uintptr_t)frame,
			.data_size_in = FRAME_LEN,
			.ctx_in = (uintptr_t)&context,
			.ctx_size_in = sizeof context,
			.repeat = UINT32_MAX,
			.flags = LIVE_FRAMES,
			.batch_size = 64,
		}};
		if (bpf(BPF_PROG_TEST_RUN, &attr) && errno != EINTR)
			fail("bpf(BPF_PROG_TEST_RUN)");
	} while (now() - start < seconds);
	printf("%llu %.6f\n", (unsigned long long)n_sent(map), now() - start);
	return 0;
}
