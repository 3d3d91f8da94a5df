/* Boosted trees over memory that all backends share: the raw scores of a LightGBM model, bit-equal
 * to the library's.
 *
 * The library keeps every backend's trees on that backend's own heap, spread over a dozen arrays a
 * tree. Here a model is one read-only file that backends map (trees.py writes it), a node is twelve
 * bytes with its children side by side, and eight trees are walked at once, without a branch that
 * could be mispredicted, so that the waits for memory overlap. Missing values cost nothing in the
 * walk: the row is laid out once for each way of treating them (see fill), and a node names the
 * place that it looks at.
 *
 * cc -O2 -shared -fPIC -o libalphaplus_trees.so trees.c
 *
 * Nothing here allocates, and no walk leaves the file: alphaplus_trees_check looks at every index
 * before the first one.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

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

int alphaplus_trees_format(void) { return FORMAT; }

/* 0: a model of this format that fills `size` bytes and whose walks stay inside it. */
int alphaplus_trees_check(const header *model, uint64_t size) {
    if (size < sizeof(header) || memcmp(model->magic, "AP-TREES", 8) || model->format != FORMAT)
        return 1;
    if (size != sizeof(header) + model->trees * (uint64_t)sizeof(tree)
                    + model->nodes * (uint64_t)sizeof(node))
        return 1;
    uint64_t places = 1;
    for (int way = 0; way < WAYS; way++)
        places += model->ways[way] ? model->features : 0;
    if (places > MOST_PLACES)
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
void alphaplus_trees_score(const header *model, const double *row, int64_t rows, double *out) {
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
