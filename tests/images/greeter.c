/* The whole system of a tiny guest: asks for an address by DHCP on eth0, takes it, tells that by one packet, and greets on port 22. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
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

static void set(int link, unsigned long request, unsigned address) {
    struct ifreq card = {.ifr_name = "eth0"};
    struct sockaddr_in *place = (struct sockaddr_in *)&card.ifr_addr;
    place->sin_family = AF_INET, place->sin_addr.s_addr = address;
    ioctl(link, request, &card);
}

int main(void) {
    struct ifreq card = {.ifr_name = "eth0"};
    struct timeval patience = {3, 0};
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(68)}, door = {.sin_family = AF_INET, .sin_port = htons(22)};
    struct dhcp offer, given;
    int console = open("/dev/console", O_RDWR), link = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    dup2(console, 0), dup2(console, 1), dup2(console, 2);
    ioctl(link, SIOCGIFHWADDR, &card);
    memcpy(mac, card.ifr_hwaddr.sa_data, 6);
    card.ifr_flags = IFF_UP | IFF_RUNNING;
    ioctl(link, SIOCSIFFLAGS, &card);
    setsockopt(link, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    setsockopt(link, SOL_SOCKET, SO_BINDTODEVICE, "eth0", 5);
    setsockopt(link, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    bind(link, (struct sockaddr *)&own, sizeof own);
    while (!ask(link, 1, 2, NULL, &offer) || !ask(link, 3, 5, &offer, &given)) sleep(1);
    set(link, SIOCSIFADDR, given.yiaddr);
    if (option(&given, 1)) {
        unsigned mask;
        memcpy(&mask, option(&given, 1), 4);
        set(link, SIOCSIFNETMASK, mask);
    }
    /* One packet to whoever gave the address: then the tables of neighbours there know this one, as they know any guest that has work. */
    if (option(&given, 54)) {
        struct sockaddr_in giver = {.sin_family = AF_INET, .sin_port = htons(9)};
        memcpy(&giver.sin_addr, option(&given, 54), 4);
        sendto(link, "here", 4, 0, (struct sockaddr *)&giver, sizeof giver);
    }
    printf("greeter: my address is %s\n", inet_ntoa(*(struct in_addr *)&given.yiaddr));
    fflush(stdout);
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
