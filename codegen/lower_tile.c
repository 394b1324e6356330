/* lower_tile.c: kernels that read along one axis and write along another (transpositions, layouts changed, and what is fused with them), in
 * tiles of both, so that both sides go along lines of memory:
 *
 *     for tiles { for v vec 16 { for c in 0..8 unroll { store y[c*R + r0 + v] = load x[(r0 + v)*C + c0 + c] } } }
 *
 * The emitter makes in-register transpositions of it (codegen/llvm/transpose.c). The last tile of an axis lies over the one before it,
 * so no result may be in place. Inside of a task tiles go along the rows that are read first, and then on by the vector. */
#include "lower_loop.h"

enum { NEAR = 64 };     /* elements of the second axis that a task goes along before it takes the next vector of the first */

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool nest_may_tile(const loop_nest *ln) {
  static const char *const names[2] = {"inplace", "reuse"};
  uint32_t n;
  for (int i = 0; i < 2; i++)
    if (ir_kernel_get(ln->g, ln->lx->region, names[i], &n) && n) return false;
  return !ln->core && ln->n_stages == 0;
}

void nest_open_tile(loop_nest *ln, lp_cursor *at) {
  int var = lp_var_add(ln->k, "c", ln->tile);
  lp_for(ln->k, at, var, 0, ln->tile, 0, at)->unroll = true;
  nest_set(ln, ln->across, lp_add(ln->k, ln->tile_place, lp_var(ln->k, var)));
}

static lp_ref place_of(lp_kernel *k, lp_ref block, int64_t size, int64_t extent) {
  lp_ref place = lp_mul(k, block, size);
  return extent % size ? lp_op(k, IR_min, TT_I64, place, lp_int(k, extent - size), 0) : place;
}

/* Of `n` blocks, number i of those that part t of `each` has; the last again where they are not that many. */
static lp_ref block_of(loop_nest *ln, lp_cursor *at, lp_ref part, int64_t each, int64_t n, const char *name) {
  lp_kernel *k = ln->k;
  if (each == 1) return part;
  int var = lp_var_add(k, name, each);
  lp_for(k, at, var, 0, each, 0, at);
  lp_ref block = lp_add(k, lp_mul(k, part, each), lp_var(k, var));
  return n % each ? lp_op(k, IR_min, TT_I64, block, lp_int(k, n - 1), 0) : block;
}

void nest_tiles(loop_nest *ln, nest_body *body) {
  lp_kernel *k = ln->k;
  const loop_group *v = &ln->groups[ln->vec], *c = &ln->groups[ln->across];
  int64_t n_v = ceil_div(v->extent, ln->lanes), n_c = ceil_div(c->extent, ln->tile), others = 1, size = ln->lanes * ln->tile;
  for (int i = 0; i < ln->n_groups; i++)
    if (i != ln->vec && i != ln->across) others *= ln->groups[i].extent;
  int64_t each_c = ceil_div(n_c, ceil_div(n_c * ln->tile, NEAR)), each_v = ln->grain / (size * each_c);
  each_v = each_v < 1 ? 1 : each_v > n_v ? n_v : each_v;
  each_v = ceil_div(n_v, ceil_div(n_v, each_v));
  int64_t parts_v = ceil_div(n_v, each_v), parts_c = ceil_div(n_c, each_c), each_other = parts_v * parts_c == 1 ? ln->grain / (size * each_c * each_v) : 1;
  each_other = each_other < 1 ? 1 : each_other > others ? others : each_other;
  each_other = ceil_div(others, ceil_div(others, each_other));
  k->tasks = ceil_div(others, each_other) * parts_v * parts_c;
  lp_cursor at = {&k->body};
  lp_ref task = lp_var(k, 0), part_c = lp_mod(k, task, parts_c), part_v = lp_mod(k, lp_div(k, task, parts_c), parts_v);
  lp_ref other = block_of(ln, &at, lp_div(k, task, parts_c * parts_v), each_other, others, "row");
  for (int i = ln->n_groups - 1; i >= 0; i--) {
    if (i == ln->vec || i == ln->across) continue;
    nest_set(ln, i, lp_mod(k, other, ln->groups[i].extent));
    other = lp_div(k, other, ln->groups[i].extent);
  }
  ln->place = place_of(k, block_of(ln, &at, part_v, each_v, n_v, "tile"), ln->lanes, v->extent);
  ln->tile_place = place_of(k, block_of(ln, &at, part_c, each_c, n_c, "tile"), ln->tile, c->extent);
  ln->width = ln->lanes;
  body(ln, &at);
}
