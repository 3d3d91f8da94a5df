/* Boosted trees over memory that all backends share: the raw scores of a LightGBM model, bit-equal
 * to the library's. A module for Python (stable ABI, 3.11 and later): alphaplus_trees.Trees(path).
 *
 * The library keeps every backend's trees on that backend's own heap, spread over a dozen arrays a
 * tree. Here a model is one read-only file that backends map (trees.py writes it), a node is twelve
 * bytes with its children side by side, and eight trees are walked at once, without a branch that
 * could be mispredicted, so that the waits for memory overlap. Missing values cost nothing in the
 * walk: the row is laid out once for each way of treating them (see fill), and a node names the
 * place that it looks at.
 *
 * Compiled by docker/compile.sh.
 *
 * No walk leaves the file: check looks at every index before the first one.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT 1
#define LANES 8
#define MOST_PLACES 16384 /* 128 KiB of a backend's stack */
#define ZERO ((double)1e-35f) /* LightGBM's kZeroThreshold */

/* How a node reads a value, in the order of the row's layouts. */
enum { PLAIN, NAN_AS_ZERO, NAN_LEFT, ZERO_RIGHT, ZERO_LEFT, WAYS };

typedef struct {
    char magic[8]; /* "AP-TREES" */
    uint32_t format, features, trees, nodes;
    uint8_t ways[8]; /* 1 where the row is laid out that way */
    uint64_t checksum; /* trees.py looks at it */
} header;

typedef struct {
    uint32_t first; /* its root, among all nodes */
    uint32_t depth; /* steps that reach every leaf */
} tree;

/* A leaf: place 0, which holds minus infinity, and itself as its child: further steps stay. */
typedef struct __attribute__((packed, aligned(4))) {
    double value; /* threshold, or a leaf's output */
    uint16_t place; /* of the value it looks at */
    uint16_t child; /* the left one, in its tree; the right one follows it */
} node;

static const tree *trees_of(const header *model) { return (const tree *)(model + 1); }

static const node *nodes_of(const header *model) {
    return (const node *)(trees_of(model) + model->trees);
}

/* 0: a model of this format that fills `size` bytes and whose walks stay inside it. */
static int check(const header *model, uint64_t size) {
    if (size < sizeof(header) || memcmp(model->magic, "AP-TREES", 8) || model->format != FORMAT)
        return 1;
    if (size != sizeof(header) + model->trees * (uint64_t)sizeof(tree)
                    + model->nodes * (uint64_t)sizeof(node))
        return 1;
    uint64_t places = 1;
    for (int way = 0; way < WAYS; way++)
        places += model->ways[way] ? model->features : 0;
    if (places > MOST_PLACES || model->features > MOST_PLACES)
        return 1;
    const tree *trees = trees_of(model);
    const node *nodes = nodes_of(model);
    for (uint32_t t = 0; t < model->trees; t++) {
        uint64_t end = t + 1 < model->trees ? trees[t + 1].first : model->nodes;
        uint64_t first = trees[t].first;
        if (first >= end || end > model->nodes || end - first > UINT16_MAX)
            return 1;
        for (uint64_t i = first; i < end; i++) {
            uint64_t child = i + nodes[i].child;
            if (nodes[i].place >= places || (nodes[i].place ? child + 1 >= end : child != i))
                return 1;
            if (!nodes[i].place && isnan(nodes[i].value))
                return 1;
        }
    }
    return 0;
}

static void fill(const header *model, const double *row, double *places) {
    *places++ = -INFINITY;
    for (int way = 0; way < WAYS; way++) {
        if (!model->ways[way])
            continue;
        for (uint32_t f = 0; f < model->features; f++) {
            double x = row[f];
            int zero = !(fabs(x) > ZERO); /* NaN too */
            int missing = isnan(x);
            if (way == PLAIN)
                x = missing ? x : zero ? 0.0 : x;
            else if (way == NAN_AS_ZERO)
                x = zero ? 0.0 : x;
            else if (way == NAN_LEFT)
                x = missing ? -INFINITY : zero ? 0.0 : x;
            else if (way == ZERO_RIGHT)
                x = zero ? NAN : x; /* not <= anything */
            else
                x = zero ? -INFINITY : x;
            places[f] = x;
        }
        places += model->features;
    }
}

static inline const node *step(const node *at, const double *places) {
    return at + at->child + !(places[at->place] <= at->value);
}

/* Raw scores of `rows` rows of `features` values; trees are added up in their order. */
static void score(const header *model, const double *row, int64_t rows, double *out) {
    const tree *trees = trees_of(model);
    const node *nodes = nodes_of(model);
    double places[MOST_PLACES];
    for (int64_t r = 0; r < rows; r++, row += model->features) {
        fill(model, row, places);
        double sum = 0.0;
        uint32_t t = 0;
        for (; t + LANES <= model->trees; t += LANES) {
            const node *at[LANES];
            uint32_t depth = 0;
            for (int k = 0; k < LANES; k++) {
                at[k] = nodes + trees[t + k].first;
                depth = trees[t + k].depth > depth ? trees[t + k].depth : depth;
            }
            for (; depth; depth--) {
                uint32_t inner = 0;
                #pragma GCC unroll 8
                for (int k = 0; k < LANES; k++) {
                    inner |= at[k]->place;
                    at[k] = step(at[k], places);
                }
                if (!inner)
                    break;
            }
            for (int k = 0; k < LANES; k++)
                sum += at[k]->value;
        }
        for (; t < model->trees; t++) {
            const node *at = nodes + trees[t].first;
            for (uint32_t depth = trees[t].depth; depth; depth--)
                at = step(at, places);
            sum += at->value;
        }
        out[r] = sum;
    }
}

typedef struct {
    PyObject_HEAD
    const header *model; /* null when it is closed */
    uint64_t size;
} Trees;

static PyObject *trees_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"path", NULL};
    PyObject *path;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&", names, PyUnicode_FSConverter, &path))
        return NULL;
    int file = open(PyBytes_AsString(path), O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, PyBytes_AsString(path));
        Py_DECREF(path);
        return NULL;
    }
    Py_DECREF(path);
    struct stat info;
    void *model = MAP_FAILED;
    if (fstat(file, &info) == 0 && info.st_size > 0)
        model = mmap(NULL, info.st_size, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (model == MAP_FAILED || check(model, info.st_size)) {
        if (model != MAP_FAILED)
            munmap(model, info.st_size);
        PyErr_SetString(PyExc_ValueError, "not a file of packed trees");
        return NULL;
    }
    Trees *self = (Trees *)PyType_GenericAlloc(type, 0);
    if (!self) {
        munmap(model, info.st_size);
        return NULL;
    }
    self->model = model;
    self->size = info.st_size;
    return (PyObject *)self;
}

static PyObject *trees_close(PyObject *object, PyObject *Py_UNUSED(none)) {
    Trees *self = (Trees *)object;
    if (self->model)
        munmap((void *)self->model, self->size);
    self->model = NULL;
    Py_RETURN_NONE;
}

static void trees_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(trees_close(object, NULL));
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static const header *opened(PyObject *object) {
    const header *model = ((Trees *)object)->model;
    if (!model)
        PyErr_SetString(PyExc_ValueError, "the model is closed");
    return model;
}

static PyObject *trees_raw(PyObject *object, PyObject *row) {
    const header *model = opened(object);
    double values[MOST_PLACES], out;
    if (!model)
        return NULL;
    if (!PyList_Check(row) || PyList_Size(row) != model->features) {
        PyErr_SetString(PyExc_ValueError, "not a list of as many values as the model has features");
        return NULL;
    }
    for (uint32_t i = 0; i < model->features; i++) {
        PyObject *value = PyList_GetItem(row, i);
        values[i] = value == Py_None ? NAN : PyFloat_AsDouble(value);
        if (values[i] == -1.0 && PyErr_Occurred())
            return NULL;
    }
    score(model, values, 1, &out);
    return PyFloat_FromDouble(out);
}

static PyObject *trees_fill(PyObject *object, PyObject *args) {
    const header *model = opened(object);
    Py_buffer rows, out;
    if (!model || !PyArg_ParseTuple(args, "y*w*", &rows, &out))
        return NULL;
    Py_ssize_t width = model->features * sizeof(double), n = out.len / sizeof(double);
    int fits = out.len % sizeof(double) == 0 && rows.len == n * width;
    if (fits)
        score(model, rows.buf, n, out.buf);
    else
        PyErr_SetString(PyExc_ValueError, "rows and out do not fit the model and each other");
    PyBuffer_Release(&rows);
    PyBuffer_Release(&out);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *trees_features(PyObject *object, void *Py_UNUSED(closure)) {
    const header *model = opened(object);
    return model ? PyLong_FromUnsignedLong(model->features) : NULL;
}

static PyObject *trees_size(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(((Trees *)object)->size);
}

static PyMethodDef methods[] = {
    {"raw", trees_raw, METH_O,
     "Raw score of one row, a list of floats; None or NaN: missing. ValueError: another number."},
    {"fill", trees_fill, METH_VARARGS,
     "Raw scores of rows of doubles (a buffer) into out (another): raw of each row."},
    {"close", trees_close, METH_NOARGS, "Unmap it."},
    {0},
};

static PyGetSetDef attributes[] = {
    {"features", trees_features, NULL, "Values in a row.", NULL},
    {"size", trees_size, NULL, "Bytes mapped, shared by all processes.", NULL},
    {0},
};

static PyType_Slot slots[] = {
    {Py_tp_new, trees_new},
    {Py_tp_dealloc, trees_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_tp_doc, "Packed trees of a file, mapped. ValueError: it does not hold such."},
    {0},
};

static PyType_Spec spec = {
    "alphaplus_trees.Trees", sizeof(Trees), 0, Py_TPFLAGS_DEFAULT, slots,
};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "alphaplus_trees",
    .m_doc = "Scores of packed boosted trees (trees.py).",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit_alphaplus_trees(void) {
    PyObject *made = PyModule_Create(&module), *type = PyType_FromSpec(&spec);
    if (!made || !type || PyModule_AddObjectRef(made, "Trees", type) < 0
        || PyModule_AddIntConstant(made, "FORMAT", FORMAT) < 0) {
        Py_XDECREF(made);
        made = NULL;
    }
    Py_XDECREF(type);
    return made;
}
