/* What a relay such as natproxy's would cost without Python: one epoll loop, as in natproxy/worker, and nothing of its
 * policy, counts, limits, timers and logs. It reads and writes; it does not splice. For measurements only:
 * `python -m bench compiled`.
 *
 *     relay ADDRESS PORT NODE_ADDRESS NODE_PORT
 *
 * Edge-triggered epoll; one buffer for all; a read is written to the other side at once, and only what the kernel did not
 * take is copied and kept, while its sender is not read. An end is passed on once everything before it was written.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 * 1024, READS_PER_TURN = 4, EVENTS = 512, ACCEPTS_PER_TURN = 16 };

struct leg {
    int fd;
    struct leg *peer;
    char *pending; /* what this socket did not take yet */
    size_t pending_start, pending_end;
    int has_eof, is_shut, is_readable, is_connecting, is_queued;
    struct leg *next; /* in the queue of those who go on in the next turn */
    struct leg *next_dead;
};

static char buffer[BUFFER_BYTES];
static int epoll_fd;
static struct leg *queue, *dead;
static struct sockaddr_in node_address;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void close_both(struct leg *leg) {
    if (leg->fd < 0)
        return;
    struct leg *both[2] = {leg, leg->peer};
    for (int i = 0; i < 2; i++) {
        close(both[i]->fd);
        both[i]->fd = -1; /* events of this turn may still name it: freed after the turn */
        free(both[i]->pending);
        both[i]->pending = NULL;
    }
    leg->next_dead = dead;
    dead = leg;
}

static void reset_both(struct leg *leg) {
    struct linger now = {1, 0};
    if (leg->fd < 0)
        return;
    setsockopt(leg->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    setsockopt(leg->peer->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close_both(leg);
}

static void shut(struct leg *leg) {
    leg->is_shut = 1;
    if (leg->has_eof && leg->peer->is_shut)
        close_both(leg);
    else
        shutdown(leg->fd, SHUT_WR);
}

/* Return 1 where all went, 0 where some is pending, -1 where the relay is over. */
static int write_out(struct leg *leg, const char *bytes, size_t count) {
    ssize_t sent = send(leg->fd, bytes, count, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        reset_both(leg);
        return -1;
    }
    if (sent == (ssize_t)count)
        return 1;
    size_t done = sent < 0 ? 0 : (size_t)sent;
    if (!(leg->pending = malloc(count - done)))
        fail("malloc");
    memcpy(leg->pending, bytes + done, count - done);
    leg->pending_start = 0;
    leg->pending_end = count - done;
    return 0;
}

static void pump(struct leg *leg, int until_empty) {
    struct leg *peer = leg->peer;
    leg->is_readable = 1;
    if (peer->pending || peer->is_connecting || leg->has_eof)
        return;
    for (int i = 0; i < READS_PER_TURN; i++) {
        ssize_t count = recv(leg->fd, buffer, BUFFER_BYTES, 0);
        if (count < 0) {
            if (errno != EAGAIN)
                reset_both(leg);
            leg->is_readable = 0;
            return;
        }
        if (count == 0) {
            leg->has_eof = 1;
            shut(peer);
            return;
        }
        if (write_out(peer, buffer, (size_t)count) <= 0)
            return;
        if (count < BUFFER_BYTES && !until_empty) {
            leg->is_readable = 0;
            return;
        }
    }
    if (!leg->is_queued) {
        leg->is_queued = 1;
        leg->next = queue;
        queue = leg;
    }
}

static void flush(struct leg *leg) {
    ssize_t sent = send(leg->fd, leg->pending + leg->pending_start, leg->pending_end - leg->pending_start, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            reset_both(leg);
        return;
    }
    leg->pending_start += (size_t)sent;
    if (leg->pending_start < leg->pending_end)
        return;
    free(leg->pending);
    leg->pending = NULL;
    if (leg->peer->has_eof)
        shut(leg);
    else if (leg->peer->is_readable)
        pump(leg->peer, 1);
}

static void ready(struct leg *leg, unsigned events) {
    if (leg->is_connecting && events & (EPOLLOUT | EPOLLERR)) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(leg->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            reset_both(leg);
            return;
        }
        leg->is_connecting = 0;
        if (leg->peer->is_readable)
            pump(leg->peer, 1);
    }
    if (leg->fd >= 0 && leg->pending && events & ~EPOLLIN)
        flush(leg);
    if (leg->fd >= 0 && events & ~EPOLLOUT)
        pump(leg, (events & ~(EPOLLIN | EPOLLOUT)) != 0);
}

static void watch(struct leg *leg, unsigned events) {
    struct epoll_event event = {.events = events | EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = leg};
    int one = 1;
    setsockopt(leg->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, leg->fd, &event))
        fail("epoll_ctl");
}

static void accept_some(int listener) {
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct leg *legs = calloc(2, sizeof *legs); /* client, node: freed together */
        if (!legs)
            fail("calloc");
        legs[0].fd = fd;
        legs[1].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (legs[1].fd < 0)
            fail("socket");
        legs[0].peer = &legs[1];
        legs[1].peer = &legs[0];
        legs[1].is_connecting = 1;
        watch(&legs[0], EPOLLOUT);
        watch(&legs[1], EPOLLOUT);
        if (connect(legs[1].fd, (struct sockaddr *)&node_address, sizeof node_address) && errno != EINPROGRESS)
            reset_both(&legs[0]);
    }
}

int main(int count, char **words) {
    if (count != 5)
        return fprintf(stderr, "relay ADDRESS PORT NODE_ADDRESS NODE_PORT\n"), 2;
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[2]))};
    node_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[4]))};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (inet_pton(AF_INET, words[1], &own.sin_addr) != 1 || inet_pton(AF_INET, words[3], &node_address.sin_addr) != 1)
        return fprintf(stderr, "not an address\n"), 2;
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 4096))
        fail("listen");
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS], accepting = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &accepting);
    for (;;) {
        int found = epoll_wait(epoll_fd, events, EVENTS, queue ? 0 : -1);
        for (int i = 0; i < found; i++) {
            struct leg *leg = events[i].data.ptr;
            if (!leg)
                accept_some(listener);
            else if (leg->fd >= 0)
                ready(leg, events[i].events);
        }
        struct leg *waiting = queue;
        queue = NULL;
        while (waiting) {
            struct leg *leg = waiting;
            waiting = leg->next;
            leg->is_queued = 0;
            if (leg->fd >= 0)
                pump(leg, 1);
        }
        for (struct leg **link = &queue; dead && *link;)
            if ((*link)->fd < 0)
                *link = (*link)->next;
            else
                link = &(*link)->next;
        while (dead) {
            struct leg *leg = dead;
            dead = leg->next_dead;
            free(leg < leg->peer ? leg : leg->peer);
        }
    }
}
