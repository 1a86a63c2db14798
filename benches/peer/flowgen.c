/* A source and sink of packets in memory, as a virtual device of DPDK 22.11 (out of tree).
 *
 * Receiving makes frames, a template with a 5-tuple written into it, in buffers of the application's
 * own pool: no file, no ring, no second core, and flows cost no memory. Sending frees and counts.
 *
 * benches/src/workload/generator.rs does the same for our own switch: change both or none.
 *
 * Arguments of the device (decimal):
 *   flows=N   flows, in an order without pattern   start=N  number of the first
 *   order=1   one after the other instead          max=N    end after so many packets
 *   shape=0   10.1/16 to 10.2/16                    shape=1  one of 20 masks x 500 networks
 *   shape=2   all bits random
 *   bidir=1   half of the packets are answers      backend=N  address that these come from
 *   tcp=1     TCP (ACK) instead of UDP
 *   encap=1   in VXLAN     encap=2  in Geneve      vni=N
 *   norx=1    only a sink
 */
#include <stdlib.h>
#include <string.h>
#include <rte_ether.h>
#include <rte_kvargs.h>
#include <rte_mbuf.h>
#include <ethdev_driver.h>
#include <ethdev_vdev.h>
#include <bus_vdev_driver.h>

#define MAX_QUEUES 16
#define FRAME_LEN 60
#define OUTER_LEN 50
#define ROOM 128

struct settings {
	uint64_t flows, start, order, max, shape, bidir, backend, tcp, encap, vni, norx;
};

static const char *const names[] = {"flows", "start", "order", "max", "shape", "bidir", "backend", "tcp", "encap",
	"vni", "norx", NULL};

struct device;

struct queue {
	struct rte_mempool *pool;
	struct device *device;
	uint64_t packets, bytes;
	uint64_t x;         /* state of the random order */
	uint32_t sequence;  /* state of the other */
} __rte_cache_aligned;

struct device {
	struct settings settings;
	struct rte_ether_addr mac;
	uint16_t port;
	uint16_t inner;     /* where the inner frame begins */
	uint16_t len;
	uint32_t ip_sum;    /* of the inner IPv4 header without its addresses */
	uint8_t template[ROOM] __rte_cache_aligned;
	struct queue rx[MAX_QUEUES], tx[MAX_QUEUES];
};

static inline uint32_t mix(uint32_t h)
{
	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	h ^= h >> 16;
	return h;
}

static inline uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static inline uint32_t next_index(struct queue *queue, const struct settings *settings)
{
	if (settings->order)
		return queue->sequence++ + settings->start;
	queue->x ^= queue->x << 13;
	queue->x ^= queue->x >> 7;
	queue->x ^= queue->x << 17;
	return ((queue->x >> 32) * settings->flows) >> 32;
}

static inline void write_frame(struct device *device, struct queue *queue, uint8_t *frame)
{
	const struct settings *settings = &device->settings;
	uint8_t *inner = frame + device->inner;
	uint32_t index = next_index(queue, settings);
	uint32_t h = mix(index + 1); /* bijective: low half in the address, high half in the port */
	uint32_t g = mix(h ^ 0x9e3779b9);
	uint32_t src = 0x0a010000u | (h & 0xffff), dst = 0x0a020000u | (g & 0xffff);
	uint16_t src_port = h >> 16, dst_port = (g >> 16) & 1023;

	memcpy(frame, device->template, 64);
	if (device->len > 64)
		memcpy(frame + 64, device->template + 64, 64);
	if (settings->shape == 1) {
		uint32_t k = index % 20, network = (index / 20) % 500, prefix_len = 13 + k;
		src = 0x20000000u | (network << (32 - prefix_len));
		if (prefix_len < 32)
			src |= h & ((1u << (32 - prefix_len)) - 1);
		inner[5] = k;
	} else if (settings->shape == 2) {
		uint32_t ports = mix(g ^ 0x9e3779b9);
		src = h;
		dst = g;
		src_port = ports >> 16;
		dst_port = ports;
	}
	if (settings->bidir && (queue->x & 1)) {
		uint32_t address = src;
		uint16_t port = src_port;
		src = settings->backend ? settings->backend : dst;
		dst = address;
		src_port = dst_port;
		dst_port = port;
	}
	*(rte_be32_t *)(inner + 26) = rte_cpu_to_be_32(src);
	*(rte_be32_t *)(inner + 30) = rte_cpu_to_be_32(dst);
	*(rte_be16_t *)(inner + 34) = rte_cpu_to_be_16(src_port);
	*(rte_be16_t *)(inner + 36) = rte_cpu_to_be_16(dst_port);
	*(rte_be16_t *)(inner + 24) = rte_cpu_to_be_16(fold(device->ip_sum + (src >> 16) + (src & 0xffff) +
		(dst >> 16) + (dst & 0xffff)));
	if (device->inner)
		*(rte_be16_t *)(frame + 34) = rte_cpu_to_be_16(0xc000 | (g & 0x3fff));
}

static uint16_t receive(void *rx, struct rte_mbuf **packets, uint16_t n)
{
	struct queue *queue = rx;
	struct device *device = queue->device;
	uint64_t max = device->settings.max;
	uint16_t i;

	if (unlikely(max)) {
		if (queue->packets >= max)
			return 0;
		if (n > max - queue->packets)
			n = max - queue->packets;
	}
	if (unlikely(rte_pktmbuf_alloc_bulk(queue->pool, packets, n)))
		return 0;
	for (i = 0; i < n; i++) {
		struct rte_mbuf *packet = packets[i];
		write_frame(device, queue, rte_pktmbuf_mtod(packet, uint8_t *));
		packet->data_len = device->len;
		packet->pkt_len = device->len;
		packet->port = device->port;
		/* What a network card would have found out; nobody verifies in software. */
		packet->ol_flags |= RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
	}
	queue->packets += n;
	queue->bytes += (uint64_t)n * device->len;
	return n;
}

static uint16_t receive_nothing(void *rx __rte_unused, struct rte_mbuf **packets __rte_unused,
	uint16_t n __rte_unused)
{
	return 0;
}

static uint16_t transmit(void *tx, struct rte_mbuf **packets, uint16_t n)
{
	struct queue *queue = tx;
	uint64_t bytes = 0;
	uint16_t i;

	for (i = 0; i < n; i++)
		bytes += packets[i]->pkt_len;
	rte_pktmbuf_free_bulk(packets, n);
	queue->packets += n;
	queue->bytes += bytes;
	return n;
}

static void put16(uint8_t *place, uint16_t value)
{
	place[0] = value >> 8;
	place[1] = value;
}

/* Ethernet and IPv4 headers; the sum of the latter without addresses and checksum. */
static uint32_t write_headers(uint8_t *frame, uint8_t mac, uint16_t len, uint8_t proto)
{
	const uint8_t ethernet[14] = {2, 0, 0, 0, mac, 2, 2, 0, 0, 0, mac, 1, 8, 0};
	uint32_t sum = 0;
	int i;

	memcpy(frame, ethernet, sizeof ethernet);
	frame[14] = 0x45;
	put16(frame + 16, len - 14);
	frame[20] = 0x40;
	frame[22] = 64;
	frame[23] = proto;
	for (i = 14; i < 34; i += 2)
		sum += (frame[i] << 8) | frame[i + 1];
	return sum;
}

static void write_template(struct device *device)
{
	static const uint8_t remote[4] = {172, 31, 1, 1}, local[4] = {172, 31, 1, 2};
	const struct settings *settings = &device->settings;
	uint8_t *frame = device->template, *inner;

	memset(frame, 0, ROOM);
	device->inner = settings->encap ? OUTER_LEN : 0;
	device->len = FRAME_LEN + device->inner;
	if (settings->encap) {
		uint32_t sum = write_headers(frame, 0xbb, device->len, 17);
		int i;

		memcpy(frame + 26, remote, 4);
		memcpy(frame + 30, local, 4);
		for (i = 26; i < 34; i += 2)
			sum += (frame[i] << 8) | frame[i + 1];
		put16(frame + 24, fold(sum));
		put16(frame + 36, settings->encap == 1 ? 4789 : 6081);
		put16(frame + 38, device->len - 34);
		if (settings->encap == 1)
			frame[42] = 8;
		else
			put16(frame + 44, 0x6558);
		frame[46] = settings->vni >> 16;
		frame[47] = settings->vni >> 8;
		frame[48] = settings->vni;
	}
	inner = frame + device->inner;
	device->ip_sum = write_headers(inner, 0xaa, FRAME_LEN, settings->tcp ? 6 : 17);
	if (settings->tcp) {
		inner[46] = 0x50;
		inner[47] = 0x10;
		put16(inner + 48, 0xffff);
	} else {
		put16(inner + 38, FRAME_LEN - 34);
	}
}

static int configure(struct rte_eth_dev *dev __rte_unused)
{
	return 0;
}

static int start(struct rte_eth_dev *dev)
{
	dev->data->dev_link.link_status = RTE_ETH_LINK_UP;
	return 0;
}

static int stop(struct rte_eth_dev *dev)
{
	dev->data->dev_link.link_status = RTE_ETH_LINK_DOWN;
	return 0;
}

static int set_up_rx(struct rte_eth_dev *dev, uint16_t n, uint16_t n_descriptors __rte_unused,
	unsigned int socket __rte_unused, const struct rte_eth_rxconf *conf __rte_unused,
	struct rte_mempool *pool)
{
	struct device *device = dev->data->dev_private;

	device->rx[n].pool = pool;
	device->rx[n].device = device;
	device->rx[n].x = 0x2545F4914F6CDD1DULL * (n + 1);
	device->rx[n].sequence = 0;
	dev->data->rx_queues[n] = &device->rx[n];
	return 0;
}

static int set_up_tx(struct rte_eth_dev *dev, uint16_t n, uint16_t n_descriptors __rte_unused,
	unsigned int socket __rte_unused, const struct rte_eth_txconf *conf __rte_unused)
{
	struct device *device = dev->data->dev_private;

	device->tx[n].device = device;
	dev->data->tx_queues[n] = &device->tx[n];
	return 0;
}

static int set_mtu(struct rte_eth_dev *dev __rte_unused, uint16_t mtu __rte_unused)
{
	return 0;
}

static int tell_info(struct rte_eth_dev *dev __rte_unused, struct rte_eth_dev_info *info)
{
	info->max_mac_addrs = 1;
	info->max_rx_pktlen = (uint32_t)-1;
	info->max_rx_queues = MAX_QUEUES;
	info->max_tx_queues = MAX_QUEUES;
	info->min_rx_bufsize = 0;
	return 0;
}

static int tell_stats(struct rte_eth_dev *dev, struct rte_eth_stats *stats)
{
	struct device *device = dev->data->dev_private;
	int i;

	for (i = 0; i < MAX_QUEUES; i++) {
		stats->ipackets += device->rx[i].packets;
		stats->ibytes += device->rx[i].bytes;
		stats->opackets += device->tx[i].packets;
		stats->obytes += device->tx[i].bytes;
	}
	return 0;
}

static int accept_it(struct rte_eth_dev *dev __rte_unused)
{
	return 0;
}

static int update_link(struct rte_eth_dev *dev __rte_unused, int wait __rte_unused)
{
	return 0;
}

static int set_mac(struct rte_eth_dev *dev __rte_unused, struct rte_ether_addr *mac __rte_unused)
{
	return 0;
}

static int close_it(struct rte_eth_dev *dev)
{
	dev->data->mac_addrs = NULL;
	return 0;
}

static const struct eth_dev_ops operations = {
	.dev_configure = configure,
	.dev_start = start,
	.dev_stop = stop,
	.dev_close = close_it,
	.dev_infos_get = tell_info,
	.rx_queue_setup = set_up_rx,
	.tx_queue_setup = set_up_tx,
	.mtu_set = set_mtu,
	.link_update = update_link,
	.mac_addr_set = set_mac,
	.stats_get = tell_stats,
	.stats_reset = accept_it,
	.promiscuous_enable = accept_it,
	.promiscuous_disable = accept_it,
	.allmulticast_enable = accept_it,
	.allmulticast_disable = accept_it,
};

static int read_number(const char *name __rte_unused, const char *text, void *place)
{
	*(uint64_t *)place = strtoull(text, NULL, 0);
	return 0;
}

static int read_settings(const char *text, struct settings *settings)
{
	uint64_t *places[] = {&settings->flows, &settings->start, &settings->order, &settings->max,
		&settings->shape, &settings->bidir, &settings->backend, &settings->tcp, &settings->encap, &settings->vni,
		&settings->norx};
	struct rte_kvargs *list = rte_kvargs_parse(text, names);
	int i;

	if (!list)
		return -1;
	for (i = 0; names[i]; i++)
		rte_kvargs_process(list, names[i], read_number, places[i]);
	rte_kvargs_free(list);
	return 0;
}

static int probe(struct rte_vdev_device *vdev)
{
	const char *text = rte_vdev_device_args(vdev);
	struct settings settings = {.flows = 1, .vni = 100};
	struct rte_eth_dev *dev;
	struct device *device;

	if (text && *text && read_settings(text, &settings))
		return -EINVAL;
	if (vdev->device.numa_node == SOCKET_ID_ANY)
		vdev->device.numa_node = rte_socket_id();
	dev = rte_eth_vdev_allocate(vdev, sizeof *device);
	if (!dev)
		return -ENOMEM;
	device = dev->data->dev_private;
	device->settings = settings;
	device->port = dev->data->port_id;
	write_template(device);
	rte_eth_random_addr(device->mac.addr_bytes);
	dev->data->nb_rx_queues = dev->data->nb_tx_queues = 1;
	dev->data->mac_addrs = &device->mac;
	dev->data->dev_link.link_speed = RTE_ETH_SPEED_NUM_100G;
	dev->data->dev_link.link_duplex = RTE_ETH_LINK_FULL_DUPLEX;
	dev->data->promiscuous = 1;
	dev->data->all_multicast = 1;
	dev->dev_ops = &operations;
	dev->rx_pkt_burst = settings.norx ? receive_nothing : receive;
	dev->tx_pkt_burst = transmit;
	rte_eth_dev_probing_finish(dev);
	return 0;
}

static int remove_it(struct rte_vdev_device *vdev)
{
	struct rte_eth_dev *dev = rte_eth_dev_allocated(rte_vdev_device_name(vdev));

	if (dev) {
		close_it(dev);
		rte_eth_dev_release_port(dev);
	}
	return 0;
}

static struct rte_vdev_driver driver = {.probe = probe, .remove = remove_it};
RTE_PMD_REGISTER_VDEV(net_flowgen, driver);
