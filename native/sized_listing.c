/* A directory's entries, with the sizes of the wanted ones.

   os.scandir and DirEntry.stat take two thirds of their time to make objects of every stat(2) field; we need one field. */

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LISTED_BYTES = 32 * 1024, SHORTEST_ENTRY_BYTES = 24, MOST_ENTRIES = LISTED_BYTES / SHORTEST_ENTRY_BYTES };

typedef struct dirent Entry; /* with 64-bit offsets, the layout that getdents64(2) returns */

/* A wanted entry. */
typedef struct {
    const char *path;
    PyObject *name;
    long long size_bytes;
} Wanted;

static int is_self_or_parent(const char *path)
{
    return path[0] == '.' && (path[1] == 0 || (path[1] == '.' && path[2] == 0));
}

static int has_suffix(const char *path, const char *suffix)
{
    size_t length = strlen(path), suffix_length = strlen(suffix);
    return length >= suffix_length && strcmp(path + length - suffix_length, suffix) == 0;
}

/* The next entries: those that are wanted into `wanted`, other names with that suffix into the list `others`. -1: an exception
   is set. */
static int sort_out(
    const char *listed, Py_ssize_t size_bytes, PyObject *names, const char *suffix, Wanted *wanted, PyObject *others)
{
    int count = 0;
    for (Py_ssize_t at = 0; at < size_bytes;) {
        const Entry *entry = (const Entry *)(listed + at);
        at += entry->d_reclen;
        if (is_self_or_parent(entry->d_name))
            continue;
        PyObject *name = PyUnicode_DecodeFSDefault(entry->d_name);
        int is_wanted = name ? PySequence_Contains(names, name) : -1;
        if (is_wanted == 1)
            wanted[count++] = (Wanted){entry->d_name, name, 0};
        else if (is_wanted == 0 && has_suffix(entry->d_name, suffix))
            is_wanted = PyList_Append(others, name);
        if (is_wanted != 1)
            Py_XDECREF(name);
        if (is_wanted < 0) {
            while (count)
                Py_DECREF(wanted[--count].name);
            return -1;
        }
    }
    return count;
}

PyDoc_STRVAR(list_sizes_doc,
    "list_sizes(handle: int, names: Set[str], suffix: str, /) -> tuple[dict[str, int], list[str]]\n\n"
    "Of the entries of a directory that are among the names, the bytes of each regular file, -1 for what is none (links\n"
    "are not followed) or cannot be looked at; and of all others the names that end with the suffix. Raises OSError.");

static PyObject *list_sizes(PyObject *module, PyObject *arguments)
{
    (void)module;
    int handle;
    PyObject *names;
    const char *suffix;
    if (!PyArg_ParseTuple(arguments, "iOs:list_sizes", &handle, &names, &suffix))
        return NULL;
    PyObject *sizes = PyDict_New(), *others = PyList_New(0);
    int good = sizes && others;
    if (good && lseek(handle, 0, SEEK_SET) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        good = 0;
    }
    while (good) {
        _Alignas(Entry) char listed[LISTED_BYTES];
        Wanted wanted[MOST_ENTRIES];
        Py_ssize_t size_bytes;
        Py_BEGIN_ALLOW_THREADS
        size_bytes = syscall(SYS_getdents64, handle, listed, sizeof listed);
        Py_END_ALLOW_THREADS
        if (size_bytes < 0 && errno == ENOENT) /* the directory was removed after it was opened: empty, as readdir(3) has it */
            size_bytes = 0;
        if (size_bytes < 0)
            PyErr_SetFromErrno(PyExc_OSError);
        int count = size_bytes > 0 ? sort_out(listed, size_bytes, names, suffix, wanted, others) : -1;
        good = size_bytes == 0 || count >= 0;
        if (count < 0)
            break;
        Py_BEGIN_ALLOW_THREADS
        for (int i = 0; i < count; i++) {
            struct stat there;
            int found = fstatat(handle, wanted[i].path, &there, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(there.st_mode);
            wanted[i].size_bytes = found ? (long long)there.st_size : -1;
        }
        Py_END_ALLOW_THREADS
        while (count) {
            Wanted *one = &wanted[--count];
            PyObject *size = PyLong_FromLongLong(one->size_bytes);
            good = good && size && PyDict_SetItem(sizes, one->name, size) == 0;
            Py_XDECREF(size);
            Py_DECREF(one->name);
        }
    }
    (void)lseek(handle, 0, SEEK_SET); /* os.listdir and os.scandir start at the handle's position, so leave it at the start */
    PyObject *found = good ? PyTuple_Pack(2, sizes, others) : NULL;
    Py_XDECREF(sizes);
    Py_XDECREF(others);
    return found;
}

static PyMethodDef methods[] = {{"list_sizes", list_sizes, METH_VARARGS, list_sizes_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "sized_listing", "A directory's entries, with the sizes of some.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_sized_listing(void)
{
    return PyModuleDef_Init(&definition);
}
