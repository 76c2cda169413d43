/* The whole system of a tiny guest: asks for an address by DHCP on eth0, takes it, tells that by one packet, and greets on port 22.
   Its HTTPS is OpenSSL's own; and it is its own identity agent, as images/guest/usr/local/lib/boxshift/identity.py is in a real one. */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <net/if_arp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

struct dhcp {
    unsigned char op, htype, hlen, hops;
    unsigned xid;
    unsigned short secs, flags;
    unsigned ciaddr, yiaddr, siaddr, giaddr;
    unsigned char chaddr[16], names[192];
    unsigned cookie;
    unsigned char options[308];
};

static unsigned char mac[6];

static const unsigned char *option(const struct dhcp *answer, int wanted) {
    const unsigned char *at = answer->options, *end = at + sizeof answer->options;
    while (at + 1 < end && *at != 255) {
        if (*at == wanted) return at + 2;
        at += *at ? 2 + at[1] : 1;
    }
    return NULL;
}

/* Sends one request and waits some seconds for the answer of the wanted type; late ones to earlier requests are passed over. */
static int ask(int link, int type, int wanted, const struct dhcp *offer, struct dhcp *answer) {
    struct sockaddr_in everyone = {.sin_family = AF_INET, .sin_port = htons(67), .sin_addr = {INADDR_BROADCAST}};
    struct dhcp asked = {.op = 1, .htype = 1, .hlen = 6, .flags = htons(0x8000), .cookie = htonl(0x63825363)};
    unsigned char *at = asked.options;
    memcpy(asked.chaddr, mac, 6);
    memcpy(&asked.xid, mac + 2, 4);  /* others on this wire ask as well */
    *at++ = 53, *at++ = 1, *at++ = type;
    if (offer) {
        const unsigned char *server = option(offer, 54);
        *at++ = 50, *at++ = 4, memcpy(at, &offer->yiaddr, 4), at += 4;
        if (server) *at++ = 54, *at++ = 4, memcpy(at, server, 4), at += 4;
    }
    *at = 255;
    if (sendto(link, &asked, sizeof asked, 0, (struct sockaddr *)&everyone, sizeof everyone) < 0) return 0;
    while (recv(link, answer, sizeof *answer, 0) > 240)
        if (answer->op == 2 && answer->xid == asked.xid && !memcmp(answer->chaddr, mac, 6) && option(answer, 53) &&
            option(answer, 53)[0] == wanted)
            return 1;
    return 0;
}

static void set(int link, const char *name, unsigned long request, unsigned address) {
    struct ifreq card = {0};
    struct sockaddr_in *place = (struct sockaddr_in *)&card.ifr_addr;
    strcpy(card.ifr_name, name), place->sin_family = AF_INET, place->sin_addr.s_addr = address;
    ioctl(link, request, &card);
}

static void take_address(void) {
    struct ifreq card = {.ifr_name = "eth0"};
    struct timeval patience = {5, 0}; /* a server looks for three seconds whether somebody has the address already */
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(68)};
    struct dhcp offer, given;
    int link = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    ioctl(link, SIOCGIFHWADDR, &card);
    memcpy(mac, card.ifr_hwaddr.sa_data, 6);
    card.ifr_flags = IFF_UP | IFF_RUNNING;
    ioctl(link, SIOCSIFFLAGS, &card);
    while (!ioctl(link, SIOCGIFFLAGS, &card) && !(card.ifr_flags & IFF_RUNNING)) usleep(10000); /* until then it sends nothing */
    setsockopt(link, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    setsockopt(link, SOL_SOCKET, SO_BINDTODEVICE, "eth0", 5);
    setsockopt(link, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    bind(link, (struct sockaddr *)&own, sizeof own);
    while (!ask(link, 1, 2, NULL, &offer) || !ask(link, 3, 5, &offer, &given)) sleep(1);
    set(link, "eth0", SIOCSIFADDR, given.yiaddr);
    if (option(&given, 1)) {
        unsigned mask;
        memcpy(&mask, option(&given, 1), 4);
        set(link, "eth0", SIOCSIFNETMASK, mask);
    }
    /* One packet to whoever gave the address: then the tables of neighbours there know this one, as they know any guest that has work. */
    if (option(&given, 54)) {
        struct sockaddr_in giver = {.sin_family = AF_INET, .sin_port = htons(9)};
        memcpy(&giver.sin_addr, option(&given, 54), 4);
        sendto(link, "here", 4, 0, (struct sockaddr *)&giver, sizeof giver);
    }
    printf("greeter: my address is %s\n", inet_ntoa(*(struct in_addr *)&given.yiaddr));
    fflush(stdout);
    close(link);
}

static void serve_https(const char *folder) {
    static pid_t server;
    char certificate[32], key[32];
    snprintf(certificate, sizeof certificate, "%s/certificate", folder), snprintf(key, sizeof key, "%s/key", folder);
    if (server) kill(server, SIGKILL), waitpid(server, NULL, 0);
    if (!(server = fork())) {
        execl("/bin/openssl", "openssl", "s_server", "-quiet", "-www", "-accept", "443", "-cert", certificate, "-key", key, NULL);
        _exit(127);
    }
}

/* Where the value of a name begins in a line of JSON as Python writes it. */
static const char *value(const char *line, const char *name) {
    char wanted[32];
    snprintf(wanted, sizeof wanted, "\"%s\": ", name);
    const char *at = strstr(line, wanted);
    return at ? at + strlen(wanted) : "";
}

/* Writes the text of that name, in which only line breaks are escaped, into a file. */
static void keep(const char *line, const char *name, const char *path) {
    FILE *sink = fopen(path, "w");
    for (const char *at = value(line, name) + 1; *at && *at != '"'; at++)
        if (*at == '\\') fputc('\n', sink), at++;
        else fputc(*at, sink);
    fclose(sink);
}

static void switch_off(void) {
    struct ifreq card = {.ifr_name = "eth0"};
    struct sysinfo memory;
    int link = socket(AF_INET, SOCK_DGRAM, 0);
    set(link, "eth0", SIOCSIFADDR, INADDR_ANY);
    ioctl(link, SIOCSIFFLAGS, &card);
    close(link);
    sync();
    sysinfo(&memory); /* free memory that holds nothing but zeros is not saved */
    size_t size = memory.freeram > 24 << 20 ? memory.freeram - (24 << 20) : 0;
    if (size) munmap(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0), size);
}

/* Gives the card the new address of the pair of old and new that has this name. */
static void readdress(const char *line, const char *pair, const char *name) {
    struct ifreq card = {.ifr_hwaddr = {.sa_family = ARPHRD_ETHER}};
    unsigned char *own = (unsigned char *)card.ifr_hwaddr.sa_data;
    const char *found = value(line, pair);
    int link = socket(AF_INET, SOCK_DGRAM, 0);
    strcpy(card.ifr_name, name);
    if (strlen(found) > 22 && sscanf(found + 22, "\"%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", own, own + 1, own + 2, own + 3, own + 4, own + 5) == 6 &&
        ioctl(link, SIOCSIFHWADDR, &card))
        perror("greeter: its card");
    close(link);
}

/* The second card takes the address of the one port that is named, if any. */
static void plug(const char *line) {
    struct ifreq card = {.ifr_name = "eth1", .ifr_flags = IFF_UP | IFF_RUNNING};
    char address[16];
    int bits, link = socket(AF_INET, SOCK_DGRAM, 0);
    if (sscanf(value(line, "address"), "\"%15[0-9.]/%d", address, &bits) == 2) {
        set(link, "eth1", SIOCSIFADDR, inet_addr(address));
        set(link, "eth1", SIOCSIFNETMASK, htonl(~0u << (32 - bits)));
        ioctl(link, SIOCSIFFLAGS, &card);
    }
    close(link);
}

/* Whose card answers for the one peer that is named, as the end of an answer in JSON. */
static void reach(const char *line, char *said, size_t room) {
    char peer[16] = "", ip[64], mac[64], device[64];
    unsigned flags;
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(9)};
    int link = socket(AF_INET, SOCK_DGRAM, 0);
    sscanf(value(line, "peers"), "[\"%15[0-9.]", peer);
    there.sin_addr.s_addr = inet_addr(peer);
    for (int turn = 0; turn < 300; turn++) {
        sendto(link, "", 0, 0, (struct sockaddr *)&there, sizeof there);
        usleep(20000);
        FILE *table = fopen("/proc/net/arp", "r");
        char row[256];
        while (fgets(row, sizeof row, table))
            if (sscanf(row, "%63s %*s %x %63s %*s %63s", ip, &flags, mac, device) == 4 && !strcmp(ip, peer) && flags & 2 && !strcmp(device, "eth1"))
                snprintf(said, room, ", \"found\": {\"%s\": \"%s\"}", peer, mac), turn = 300;
        fclose(table);
    }
    close(link);
}

static void become(const char *line) {
    const char *name = value(line, "name") + 1;
    sethostname(name, strcspn(name, "\""));
    readdress(line, "cards", "eth0"), readdress(line, "idle", "eth1");
    keep(line, "chain", "/tmp/certificate"), keep(line, "key", "/tmp/key");
    take_address();
    plug(line);
    serve_https("/tmp");
}

static void answer(int port, const char *line) {
    char said[256], more[128] = "";
    double then = atof(value(line, "time")), by = atof(value(line, "by"));
    struct timeval now;
    if (strstr(line, "\"ask\": \"prepare\"")) switch_off();
    gettimeofday(&now, NULL);
    if (!then && by) then = now.tv_sec + now.tv_usec / 1e6 + by;
    if (then) {
        now.tv_sec = then, now.tv_usec = (then - now.tv_sec) * 1e6;
        settimeofday(&now, NULL);
    }
    if (strstr(line, "\"ask\": \"renew\"")) become(line);
    if (strstr(line, "\"ask\": \"plug\"")) plug(line);
    if (strstr(line, "\"ask\": \"reach\"")) reach(line, more, sizeof more);
    gettimeofday(&now, NULL);
    int length = snprintf(said, sizeof said, "{\"ok\": true, \"version\": 2, \"time\": %ld.%06ld%s}\n", (long)now.tv_sec, (long)now.tv_usec, more);
    if (write(port, said, length) < 0) perror("greeter: its agent");
}

static void serve_identity(void) {
    static char line[1 << 16];
    char path[300], name[64] = "";
    int port = -1;
    DIR *ports = opendir("/sys/class/virtio-ports");
    for (struct dirent *one; ports && port < 0 && (one = readdir(ports));) {
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", one->d_name);
        FILE *source = fopen(path, "r");
        if (source && fgets(name, sizeof name, source) && !strcmp(name, "boxshift.identity.0\n")) {
            snprintf(path, sizeof path, "/dev/%s", one->d_name);
            port = open(path, O_RDWR);
        }
        if (source) fclose(source);
    }
    for (size_t have = 0; port >= 0;) {
        ssize_t got = read(port, line + have, sizeof line - 1 - have);
        if (got <= 0) {
            have = 0; /* nobody is at the other end */
            usleep(20000);
            continue;
        }
        line[have += got] = 0;
        if (line[have - 1] == '\n') answer(port, line), have = 0;
    }
}

int main(void) {
    struct sockaddr_in door = {.sin_family = AF_INET, .sin_port = htons(22)};
    int console = open("/dev/console", O_RDWR);
    dup2(console, 0), dup2(console, 1), dup2(console, 2);
    mount("tmpfs", "/tmp", "tmpfs", 0, NULL), mount("sysfs", "/sys", "sysfs", 0, NULL), mount("proc", "/proc", "proc", 0, NULL);
    take_address();
    if (!fork()) {
        serve_https("/etc");
        serve_identity();
    }
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    bind(listening, (struct sockaddr *)&door, sizeof door);
    listen(listening, 8);
    for (;;) {
        int visitor = accept(listening, NULL, NULL);
        if (visitor < 0) continue;
        if (write(visitor, "SSH-2.0-greeter\r\n", 17) < 0) perror("greeter");
        close(visitor);
    }
}
