/* The least that the job can cost: unsigned GETs over keep-alive connections, one epoll loop, one buffer, into files.
 *
 * usage: floor PORT CONNECTIONS HOST LIST, where LIST has a line "PATH<tab>PLACE" for each image. It proves nothing but the
 * length, retries nothing, and knows no TLS: a floor to measure the others against, no peer.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 * 1024, HEAD_BYTES = 8 * 1024, REQUEST_BYTES = 4 * 1024 };

struct connection {
    int socket;
    int file;         /* -1 while the head of the answer is awaited */
    long long left;   /* bytes of the body that have not come yet */
    const char *place;
    char *head;       /* what came of a head that is split over segments */
    size_t head_bytes;
};

static const char *host;
static char *next_line, *list_end;
static char *buffer;

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "floor: %s: %s (%s)\n", what, which, strerror(errno));
    exit(1);
}

static void write_all(int fd, const char *from, size_t bytes)
{
    while (bytes > 0) {
        ssize_t written = write(fd, from, bytes);
        if (written < 0)
            fail("write", "a file");
        from += written;
        bytes -= (size_t)written;
    }
}

/* Ask for the next image of the list; 0 when there is none. */
static int ask(struct connection *c)
{
    char request[REQUEST_BYTES];
    if (next_line >= list_end)
        return 0;
    char *tab = strchr(next_line, '\t'), *end = strchr(next_line, '\n');
    if (tab == NULL || end == NULL || tab > end)
        fail("no list of PATH<tab>PLACE", next_line);
    *tab = *end = '\0';
    int bytes = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", next_line, host);
    if (bytes >= (int)sizeof request)
        fail("too long", next_line);
    c->place = tab + 1;
    c->head_bytes = 0;
    next_line = end + 1;
    if (send(c->socket, request, (size_t)bytes, MSG_NOSIGNAL) != bytes) /* small, and the socket's buffer is empty */
        fail("send", c->place);
    return 1;
}

/* Take what came; 0 when the list is at its end and this connection idle. */
static int take(struct connection *c, char *piece, size_t bytes)
{
    if (c->file < 0) {
        if (c->head_bytes + bytes > BUFFER_BYTES + HEAD_BYTES)
            fail("endless head", c->place);
        if (c->head_bytes > 0) { /* rare: join it to what came before */
            memcpy(c->head + c->head_bytes, piece, bytes);
            piece = c->head;
            bytes += c->head_bytes;
        }
        char *end = memmem(piece, bytes, "\r\n\r\n", 4);
        if (end == NULL) {
            if (bytes > HEAD_BYTES)
                fail("endless head", c->place);
            if (piece != c->head)
                memcpy(c->head, piece, bytes);
            c->head_bytes = bytes;
            return 1;
        }
        *end = '\0';
        char *length = strcasestr(piece, "\r\nContent-Length:");
        if (bytes < 12 || memcmp(piece, "HTTP/1.1 200", 12) != 0 || length == NULL)
            fail("not an answer of 200 with a length", c->place);
        c->left = atoll(length + 17);
        c->file = open(c->place, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (c->file < 0)
            fail("open", c->place);
        bytes -= (size_t)(end + 4 - piece);
        piece = end + 4;
    }
    if ((long long)bytes > c->left)
        fail("more than was announced", c->place);
    write_all(c->file, piece, bytes);
    c->left -= (long long)bytes;
    if (c->left > 0)
        return 1;
    close(c->file);
    c->file = -1;
    return ask(c);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        fail("usage", "floor PORT CONNECTIONS HOST LIST");
    int connections = atoi(argv[2]), busy = 0;
    host = argv[3];

    struct stat status;
    int list = open(argv[4], O_RDONLY);
    if (list < 0 || fstat(list, &status) < 0)
        fail("open", argv[4]);
    if (status.st_size > 0) {
        next_line = mmap(NULL, (size_t)status.st_size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, list, 0);
        if (next_line == MAP_FAILED)
            fail("mmap", argv[4]);
        list_end = next_line + status.st_size;
    }
    buffer = malloc(BUFFER_BYTES);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (int number = 0; number < connections && next_line < list_end; number++) {
        struct connection *c = calloc(1, sizeof *c);
        c->head = malloc(BUFFER_BYTES + HEAD_BYTES);
        c->file = -1;
        c->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int on = 1;
        setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(c->socket, (struct sockaddr *)&address, sizeof address) < 0)
            fail("connect", argv[1]);
        fcntl(c->socket, F_SETFL, O_NONBLOCK);
        struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poll, EPOLL_CTL_ADD, c->socket, &interest);
        busy += ask(c);
    }

    while (busy > 0) {
        struct epoll_event ready[64];
        int count = epoll_wait(poll, ready, 64, -1);
        for (int number = 0; number < count; number++) {
            struct connection *c = ready[number].data.ptr;
            ssize_t bytes = recv(c->socket, buffer, BUFFER_BYTES, 0);
            if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
                continue;
            if (bytes <= 0)
                fail("recv", c->place);
            if (!take(c, buffer, (size_t)bytes))
                busy--;
        }
    }
    return 0;
}
