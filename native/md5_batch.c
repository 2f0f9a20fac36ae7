/* MD5 of up to eight messages at once, each in its own lane of the vector registers.

   Within one message, each step depends on the step before (RFC 1321 3.4): 600 to 800 MB/s, by the processor. Eight
   messages take the same steps, so vector instructions do all eight in 1.5 times the time of one. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "MD5 reads little-endian words, and so do the lines below"
#endif

enum { LANES = 8, BLOCK_BYTES = 64, STATE_BYTES = 16 };

typedef uint32_t Word;
typedef Word Words __attribute__((vector_size(4 * LANES)));
typedef Word UnalignedWord __attribute__((aligned(1), may_alias));
typedef Word UnalignedWords __attribute__((vector_size(4 * LANES), aligned(1), may_alias));

#define ROTATED(x, bits) ((x) << (bits) | (x) >> (32 - (bits)))
#define F(a, b, c, d, i, bits, k) a += w[i] + k, a += d ^ (b & (c ^ d)), a = ROTATED(a, bits) + b;
#define G(a, b, c, d, i, bits, k) a += w[i] + k, a += c & ~d, a += b & d, a = ROTATED(a, bits) + b;
#define H(a, b, c, d, i, bits, k) a += w[i] + k, a += (c ^ d) ^ b, a = ROTATED(a, bits) + b;
#define I(a, b, c, d, i, bits, k) a += w[i] + k, a += c ^ (b | ~d), a = ROTATED(a, bits) + b;

/* One block, for words and for vectors of words. Operands that do not depend on the step before come first. */
#define STEPS \
    F(a, b, c, d,  0,  7, 0xd76aa478) \
    F(d, a, b, c,  1, 12, 0xe8c7b756) \
    F(c, d, a, b,  2, 17, 0x242070db) \
    F(b, c, d, a,  3, 22, 0xc1bdceee) \
    F(a, b, c, d,  4,  7, 0xf57c0faf) \
    F(d, a, b, c,  5, 12, 0x4787c62a) \
    F(c, d, a, b,  6, 17, 0xa8304613) \
    F(b, c, d, a,  7, 22, 0xfd469501) \
    F(a, b, c, d,  8,  7, 0x698098d8) \
    F(d, a, b, c,  9, 12, 0x8b44f7af) \
    F(c, d, a, b, 10, 17, 0xffff5bb1) \
    F(b, c, d, a, 11, 22, 0x895cd7be) \
    F(a, b, c, d, 12,  7, 0x6b901122) \
    F(d, a, b, c, 13, 12, 0xfd987193) \
    F(c, d, a, b, 14, 17, 0xa679438e) \
    F(b, c, d, a, 15, 22, 0x49b40821) \
    G(a, b, c, d,  1,  5, 0xf61e2562) \
    G(d, a, b, c,  6,  9, 0xc040b340) \
    G(c, d, a, b, 11, 14, 0x265e5a51) \
    G(b, c, d, a,  0, 20, 0xe9b6c7aa) \
    G(a, b, c, d,  5,  5, 0xd62f105d) \
    G(d, a, b, c, 10,  9, 0x02441453) \
    G(c, d, a, b, 15, 14, 0xd8a1e681) \
    G(b, c, d, a,  4, 20, 0xe7d3fbc8) \
    G(a, b, c, d,  9,  5, 0x21e1cde6) \
    G(d, a, b, c, 14,  9, 0xc33707d6) \
    G(c, d, a, b,  3, 14, 0xf4d50d87) \
    G(b, c, d, a,  8, 20, 0x455a14ed) \
    G(a, b, c, d, 13,  5, 0xa9e3e905) \
    G(d, a, b, c,  2,  9, 0xfcefa3f8) \
    G(c, d, a, b,  7, 14, 0x676f02d9) \
    G(b, c, d, a, 12, 20, 0x8d2a4c8a) \
    H(a, b, c, d,  5,  4, 0xfffa3942) \
    H(d, a, b, c,  8, 11, 0x8771f681) \
    H(c, d, a, b, 11, 16, 0x6d9d6122) \
    H(b, c, d, a, 14, 23, 0xfde5380c) \
    H(a, b, c, d,  1,  4, 0xa4beea44) \
    H(d, a, b, c,  4, 11, 0x4bdecfa9) \
    H(c, d, a, b,  7, 16, 0xf6bb4b60) \
    H(b, c, d, a, 10, 23, 0xbebfbc70) \
    H(a, b, c, d, 13,  4, 0x289b7ec6) \
    H(d, a, b, c,  0, 11, 0xeaa127fa) \
    H(c, d, a, b,  3, 16, 0xd4ef3085) \
    H(b, c, d, a,  6, 23, 0x04881d05) \
    H(a, b, c, d,  9,  4, 0xd9d4d039) \
    H(d, a, b, c, 12, 11, 0xe6db99e5) \
    H(c, d, a, b, 15, 16, 0x1fa27cf8) \
    H(b, c, d, a,  2, 23, 0xc4ac5665) \
    I(a, b, c, d,  0,  6, 0xf4292244) \
    I(d, a, b, c,  7, 10, 0x432aff97) \
    I(c, d, a, b, 14, 15, 0xab9423a7) \
    I(b, c, d, a,  5, 21, 0xfc93a039) \
    I(a, b, c, d, 12,  6, 0x655b59c3) \
    I(d, a, b, c,  3, 10, 0x8f0ccc92) \
    I(c, d, a, b, 10, 15, 0xffeff47d) \
    I(b, c, d, a,  1, 21, 0x85845dd1) \
    I(a, b, c, d,  8,  6, 0x6fa87e4f) \
    I(d, a, b, c, 15, 10, 0xfe2ce6e0) \
    I(c, d, a, b,  6, 15, 0xa3014314) \
    I(b, c, d, a, 13, 21, 0x4e0811a1) \
    I(a, b, c, d,  4,  6, 0xf7537e82) \
    I(d, a, b, c, 11, 10, 0xbd3af235) \
    I(c, d, a, b,  2, 15, 0x2ad7d2bb) \
    I(b, c, d, a,  9, 21, 0xeb86d391)

#if defined(__x86_64__) && defined(__GLIBC__) /* musl has no ifunc: it cannot choose a clone at load time */
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#define HAS_WIDE_VECTORS __builtin_cpu_supports("avx2")
#else
#define FOR_EACH_PROCESSOR
#ifdef __AVX2__
#define HAS_WIDE_VECTORS 1
#else
#define HAS_WIDE_VECTORS 0
#endif
#endif

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED __builtin_shufflevector
#else
#define SHUFFLED(x, y, ...) __builtin_shuffle(x, y, (Words){__VA_ARGS__})
#endif

/* Transpose: eight words of each lane become eight vectors, each with one word of every lane. */
static inline __attribute__((always_inline)) void transpose(Words *to, const uint8_t *const *from, size_t at)
{
    Words in[8], pairs[8], fours[8];
    for (int i = 0; i < 8; i++)
        in[i] = (Words) * (const UnalignedWords *)(from[i] + at);
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = SHUFFLED(in[i], in[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[i + 1] = SHUFFLED(in[i], in[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4) {
        fours[i] = SHUFFLED(pairs[i], pairs[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        fours[i + 1] = SHUFFLED(pairs[i], pairs[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        fours[i + 2] = SHUFFLED(pairs[i + 1], pairs[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        fours[i + 3] = SHUFFLED(pairs[i + 1], pairs[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; i++) {
        to[i] = SHUFFLED(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        to[i + 4] = SHUFFLED(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

FOR_EACH_PROCESSOR
static void compress_lanes(Words *state, const uint8_t *const *from, size_t blocks)
{
    Words a = state[0], b = state[1], c = state[2], d = state[3];
    for (size_t at = 0; at < blocks * BLOCK_BYTES; at += BLOCK_BYTES) {
        Words w[16], a0 = a, b0 = b, c0 = c, d0 = d;
        transpose(w, from, at);
        transpose(w + 8, from, at + BLOCK_BYTES / 2);
        STEPS
        a += a0, b += b0, c += c0, d += d0;
    }
    state[0] = a, state[1] = b, state[2] = c, state[3] = d;
}

static void compress_one(UnalignedWord *state, const uint8_t *from, size_t blocks)
{
    Word a = state[0], b = state[1], c = state[2], d = state[3];
    for (; blocks; blocks--, from += BLOCK_BYTES) {
        const UnalignedWord *w = (const UnalignedWord *)from;
        Word a0 = a, b0 = b, c0 = c, d0 = d;
        STEPS
        a += a0, b += b0, c += c0, d += d0;
    }
    state[0] = a, state[1] = b, state[2] = c, state[3] = d;
}

/* One message: the pieces of it to hash in this call. */
typedef struct {
    Py_buffer state;
    Py_buffer *pieces;
    Py_ssize_t count, begun; /* pieces in all, and pieces begun */
    const uint8_t *from;     /* what is left of the piece begun last */
    size_t blocks;
} Message;

/* Whether this piece or the next has a block left. */
static int has_blocks(Message *message)
{
    while (!message->blocks && message->begun < message->count) {
        const Py_buffer *piece = &message->pieces[message->begun++];
        message->from = piece->buf;
        message->blocks = (size_t)piece->len / BLOCK_BYTES;
    }
    return message->blocks != 0;
}

/* Hash as many blocks of each lane as the shortest message has. Lanes without a message repeat the first lane's work. */
static void run_lanes(Message **lanes, int taken)
{
    Words state[4] = {0};
    const uint8_t *from[LANES];
    size_t blocks = lanes[0]->blocks;
    for (int lane = 0; lane < LANES; lane++) {
        const Message *message = lanes[lane < taken ? lane : 0];
        from[lane] = message->from;
        if (message->blocks < blocks)
            blocks = message->blocks;
        for (int i = 0; i < 4; i++)
            state[i][lane] = ((const UnalignedWord *)message->state.buf)[i];
    }
    compress_lanes(state, from, blocks);
    for (int lane = 0; lane < taken; lane++) {
        for (int i = 0; i < 4; i++)
            ((UnalignedWord *)lanes[lane]->state.buf)[i] = state[i][lane];
        lanes[lane]->from += blocks * BLOCK_BYTES;
        lanes[lane]->blocks -= blocks;
    }
}

static void run(Message *messages, Py_ssize_t count)
{
    Message *lanes[LANES], *next = messages;
    const int fewest = HAS_WIDE_VECTORS ? 2 : 4; /* fewer messages are faster one by one */
    int taken = 0;
    for (;;) {
        for (; taken < LANES && next < messages + count; next++)
            if (has_blocks(next))
                lanes[taken++] = next;
        if (taken == 0)
            return;
        if (taken < fewest)
            for (int lane = 0; lane < taken; lane++) {
                compress_one(lanes[lane]->state.buf, lanes[lane]->from, lanes[lane]->blocks);
                lanes[lane]->blocks = 0;
            }
        else
            run_lanes(lanes, taken);
        for (int lane = 0; lane < taken;)
            if (has_blocks(lanes[lane]))
                lane++;
            else
                lanes[lane] = lanes[--taken];
    }
}

/* Take the buffers of one tuple (state, piece, ...). 0: an exception is set; the caller releases what was taken. */
static int take_message(PyObject *tuple, Message *message, Py_buffer *pieces)
{
    message->pieces = pieces;
    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) < 1) {
        PyErr_SetString(PyExc_TypeError, "a message is a tuple (state, piece, ...)");
        return 0;
    }
    if (PyObject_GetBuffer(PyTuple_GetItem(tuple, 0), &message->state, PyBUF_WRITABLE))
        return 0;
    if (message->state.len != STATE_BYTES) {
        PyErr_SetString(PyExc_ValueError, "a state has 16 bytes");
        return 0;
    }
    for (Py_ssize_t i = 1; i < PyTuple_Size(tuple); i++) {
        Py_buffer *piece = &pieces[message->count];
        if (PyObject_GetBuffer(PyTuple_GetItem(tuple, i), piece, PyBUF_SIMPLE))
            return 0;
        message->count++;
        if (piece->len % BLOCK_BYTES) {
            PyErr_SetString(PyExc_ValueError, "a piece is whole blocks of 64 bytes");
            return 0;
        }
    }
    return 1;
}

PyDoc_STRVAR(compress_doc,
    "compress(messages: list[tuple[bytearray, memoryview, ...]], /) -> None\n\n"
    "Take each message's pieces, whole blocks of 64 bytes, into its state: 16 bytes, changed in place.\n\n"
    "A state is in one message only. Padding is the caller's (RFC 1321 3.1, 3.2). Without Python's lock.");

static PyObject *compress(PyObject *module, PyObject *list)
{
    (void)module;
    if (!PyList_Check(list)) {
        PyErr_SetString(PyExc_TypeError, "the messages are a list");
        return NULL;
    }
    Py_ssize_t count = PyList_Size(list), taken = 0, pieces_in_all = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *tuple = PyList_GetItem(list, i);
        pieces_in_all += PyTuple_Check(tuple) ? PyTuple_Size(tuple) : 0;
    }
    Message *messages = PyMem_Calloc((size_t)count, sizeof *messages);
    Py_buffer *pieces = PyMem_Calloc((size_t)pieces_in_all, sizeof *pieces), *next_pieces = pieces;
    int good = messages && pieces;
    if (!good)
        PyErr_NoMemory();
    while (good && taken < count) {
        good = take_message(PyList_GetItem(list, taken), &messages[taken], next_pieces);
        next_pieces += messages[taken++].count;
    }
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        run(messages, count);
        Py_END_ALLOW_THREADS
    }
    while (next_pieces > pieces)
        PyBuffer_Release(--next_pieces);
    while (taken)
        PyBuffer_Release(&messages[--taken].state); /* a buffer that was never taken is all zeros, which is safe to release */
    PyMem_Free(pieces);
    PyMem_Free(messages);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"compress", compress, METH_O, compress_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "md5_batch", "MD5 of many messages at once.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_md5_batch(void)
{
    return PyModuleDef_Init(&definition);
}
