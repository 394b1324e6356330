/* contract_bf16.c: a product of two bf16 operands on a CPU that multiplies them: by pairs along the sum (vdpbf16ps), or by tiles (AMX). A pair is two steps of
 * the innermost summed axis in one u32; where that axis is odd the last pair's second half is 0. Both operands are copied in that form:
 *
 *     task = (batch, chunk of rows, group of panels)
 *       for each block of the sum
 *         panels[slot][pair][lane], rows[row][pair]       copied; for AMX a block is whole tiles of 16 pairs, the last ones zeros
 *         for each panel, for each tile of the chunk
 *           sums[tile][lanes] in registers, to the stage or (one block, no tiles) through the epilogue
 *       the stage through the epilogue
 *
 * What the axes are for (vector, rows, sum, batch) is contract_choose.c's choice. Few rows are left to contract_build.c, which reads the matrix as it stands
 * and is bound by that. The block is a share of L1, the chunk and the group are shares of L2; nothing looks at threads. */
#include "contract.h"

enum { TILE_PAIRS = 16, FEW = 8 };

lp_ref con_load(const lp_kernel *k, lp_ref e) {
  const lp_expr *x = &k->exprs[e];
  return x->kind == LX_OP && x->op == IR_cast && k->exprs[x->a[0]].kind == LX_LOAD ? x->a[0] : e;
}

static int64_t extent(const contraction *c, int which) { return c->axes[which].extent; }

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static int64_t rows_in_all(const contraction *c) { return c->n_rows_all * c->n_outer_all; }

static int64_t last_pairs(const contraction *c) { return (extent(c, c->sum[c->n_sum - 1]) + 1) / 2; }

/* Pairs of one step of what is cut: a pair of the only summed axis, or all beneath the outermost one. */
static int64_t inner_pairs(const contraction *c) {
  int64_t n = 1;
  for (int i = 1; i < c->n_sum - 1; i++) n *= extent(c, c->sum[i]);
  return c->n_sum == 1 ? 1 : n * last_pairs(c);
}

static int64_t outermost(const contraction *c) { return c->n_sum == 1 ? last_pairs(c) : extent(c, c->sum[0]); }

static int64_t block_pairs(const contraction *c, int64_t size) { return c->cpu->amx ? round_up(size * inner_pairs(c), TILE_PAIRS) : size * inner_pairs(c); }

bool con_pairs(contraction *c) {
  if ((!c->cpu->bf16 && !c->cpu->amx) || c->acc_type != TT_F32 || c->vec < 0 || !c->n_sum || rows_in_all(c) < FEW || extent(c, c->vec) < FEW || con_depends(&c->axes[c->vec], c->scalar_op)) return false;
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES];
  bool narrow = true;
  for (int i = 0; i < c->n_axes; i++) narrow &= extent(c, i) > 0, at[i] = lp_int(k, 0);
  for (int which = A; narrow && which <= B; which++) {
    lp_ref load = con_load(k, con_operand(c, c->lx, which, at));
    const lp_expr *x = &k->exprs[load];
    narrow = x->kind == LX_LOAD && x->dtype == TT_BF16;
  }
  if (!narrow) return false;

  bool amx = c->cpu->amx;
  int64_t v = c->cpu->vector_bytes / 4, all = rows_in_all(c), tile = (c->cpu->n_registers - 3) / 2 < 14 ? (c->cpu->n_registers - 3) / 2 : 14, tiles = (all + tile - 1) / tile, batches = 1;
  c->tile = !amx ? (all + tiles - 1) / tiles : all > 16 ? 32 : 16;
  c->lanes = extent(c, c->vec) <= v ? v : 2 * v;
  int64_t most = c->cpu->l1d / 2 / (inner_pairs(c) * c->lanes * 4), cut = outermost(c);
  if (most < 1) most = 1;
  c->n_blocks = (cut + most - 1) / most;
  c->block = (cut + c->n_blocks - 1) / c->n_blocks;
  if (c->n_sum == 1 && c->n_blocks > 1) c->block = round_up(c->block, TILE_PAIRS);
  c->n_blocks = (cut + c->block - 1) / c->block;
  int64_t pairs = block_pairs(c, c->block), panels = (extent(c, c->vec) + c->lanes - 1) / c->lanes;
  tiles = (all + c->tile - 1) / c->tile;
  c->group = c->cpu->l2 / 4 / (pairs * c->lanes * 4);
  if (c->group > 4) c->group = 4;
  if (c->group > panels) c->group = panels;
  if (c->group < 1) c->group = 1;
  c->n_groups = (panels + c->group - 1) / c->group;
  c->group = (panels + c->n_groups - 1) / c->n_groups;
  c->chunk = c->cpu->l2 / 4 / (c->tile * (pairs + TILE_PAIRS) * 4);
  if (c->chunk > 256 / c->tile) c->chunk = 256 / c->tile;
  if (c->chunk < 1) c->chunk = 1;
  if (c->chunk > tiles) c->chunk = tiles;
  c->n_chunks = (tiles + c->chunk - 1) / c->chunk;
  c->chunk = (tiles + c->n_chunks - 1) / c->n_chunks;
  for (int i = 0; i < c->n_batch; i++) batches *= extent(c, c->batch[i]);
  c->n_tasks = batches * c->n_chunks * c->n_groups;
  return true;
}

/* ---- the loops */

typedef struct {
  contraction *c;
  lp_kernel *k;
  lp_ref at[MAX_AXES];
  lp_ref chunk, group;
  lp_ref from; int64_t size; bool last;  /* the present block of what is cut */
  int panels, rows, stage;               /* buffers */
  int64_t steps, row_stride;             /* pairs that a panel, a row has in scratch */
} builder;

static void to_end(lp_cursor *at) { while (*at->tail) at->tail = &(*at->tail)->next; }

static lp_cursor only_if(builder *b, lp_cursor *at, lp_ref guard) {
  lp_stmt *s = lp_append(b->k, at, LS_IF);
  s->guard = guard;
  return (lp_cursor){&s->body};
}

static void place_row(builder *b, lp_ref row) {
  contraction *c = b->c;
  con_unflatten(c, c->outer, c->n_outer, lp_div(b->k, row, c->n_rows_all), b->at);
  con_unflatten(c, c->rows, c->n_rows, lp_mod(b->k, row, c->n_rows_all), b->at);
}

/* Two steps of the sum from number `first` of its innermost axis on; alone: the second is past its end. */
static lp_ref pair_of(builder *b, int which, lp_ref first, bool alone) {
  lp_kernel *k = b->k;
  contraction *c = b->c;
  lp_ref load[2] = {0}, bits[2];
  int last = c->sum[c->n_sum - 1];
  for (int i = 0; i < 2 - alone; i++) {
    b->at[last] = lp_add(k, first, lp_int(k, i));
    load[i] = con_load(k, con_operand(c, c->lx, which, b->at));
    bits[i] = lp_op(k, IR_bitcast, TT_U32, lp_op(k, IR_cast, TT_F32, load[i], 0, 0), 0, 0);
  }
  if (!alone) {                                                     /* side by side, from an even place on: they are the pair */
    lp_ref index = k->exprs[load[0]].a[0], half = lp_div(k, index, 2);
    int buffer = (int)k->exprs[load[0]].imm;
    if (lp_mul(k, half, 2) == index && k->exprs[load[1]].a[0] == lp_add(k, index, lp_int(k, 1))) return lp_load(k, lp_buffer_again(k, buffer, TT_U32), half, 0, 0);
  }
  lp_ref low = lp_op(k, IR_shr, TT_U32, bits[0], lp_const_bits(k, TT_U32, 16), 0);
  return alone ? low : lp_op(k, IR_or, TT_U32, low, lp_op(k, IR_and, TT_U32, bits[1], lp_const_bits(k, TT_U32, 0xffff0000), 0), 0);
}

typedef void copy_fn(builder *b, lp_cursor *at, lp_ref pair, lp_ref first, int n, bool alone, void *arg);

/* Loops over all pairs of the block: fn gets n pairs, the first one's number in the block and its first step of the innermost axis. lanes: of the innermost
 * loop; by: pairs at once, where they are a multiple of so many. */
static void each_pair(builder *b, lp_cursor *at, int lanes, int by, copy_fn *fn, void *arg) {
  lp_kernel *k = b->k;
  contraction *c = b->c;
  lp_cursor here = *at;
  lp_ref before = lp_int(k, 0);                                     /* rows of pairs before this one */
  for (int i = 0; i + 1 < c->n_sum; i++) {
    int64_t n = i ? extent(c, c->sum[i]) : b->size;
    int var = lp_var_add(k, "o", n);
    lp_for(k, &here, var, 0, n, 0, &here);
    b->at[c->sum[i]] = i ? lp_var(k, var) : lp_add(k, b->from, lp_var(k, var));
    before = lp_add(k, lp_mul(k, before, n), lp_var(k, var));
  }
  int64_t pairs = c->n_sum == 1 ? b->size : last_pairs(c), length = extent(c, c->sum[c->n_sum - 1]), odd = length % 2;
  lp_ref from = c->n_sum == 1 ? b->from : lp_int(k, 0);
  int64_t whole = pairs - (odd && (c->n_sum > 1 || b->last));
  while (whole % by) by /= 2;
  if (whole) {
    int var = lp_var_add(k, "p", whole / by);
    lp_cursor inside;
    lp_for(k, &here, var, 0, whole / by, lanes, &inside);
    lp_ref p = lp_mul(k, lp_var(k, var), by);
    fn(b, &inside, lp_add(k, lp_mul(k, before, pairs), p), lp_mul(k, lp_add(k, from, p), 2), by, false, arg);
    to_end(&here);
  }
  if (whole < pairs) fn(b, &here, lp_add(k, lp_mul(k, before, pairs), lp_int(k, whole)), lp_mul(k, lp_add(k, from, lp_int(k, whole)), 2), 1, true, arg);
  to_end(at);
}

typedef struct { lp_ref panel, slot, row; int64_t width; } copy_place;

static lp_ref panel_at(builder *b, lp_ref slot, lp_ref pair, lp_ref lane) {
  return lp_add(b->k, lp_mul(b->k, lp_add(b->k, lp_mul(b->k, slot, b->steps), pair), b->c->lanes), lane);
}

static lp_ref row_at(builder *b, lp_ref row, lp_ref pair) { return lp_add(b->k, lp_mul(b->k, row, b->row_stride), pair); }

static void copy_panel(builder *b, lp_cursor *at, lp_ref pair, lp_ref first, int n, bool alone, void *arg) {
  const copy_place *p = arg;
  lp_kernel *k = b->k;
  int var = lp_var_add(k, "l", p->width);
  lp_cursor inside;
  lp_for(k, at, var, 0, p->width, (int)b->c->lanes, &inside);
  b->at[b->c->vec] = lp_add(k, lp_mul(k, p->panel, b->c->lanes), lp_var(k, var));
  for (int i = 0; i < n; i++) {
    lp_ref value = pair_of(b, b->c->vector_op, lp_add(k, first, lp_int(k, 2 * i)), alone);
    lp_stmt *s = lp_append(k, &inside, LS_STORE);
    s->buffer = b->panels, s->index = panel_at(b, p->slot, lp_add(k, pair, lp_int(k, i)), lp_var(k, var)), s->value = value;
  }
  to_end(at);
}

static void copy_row(builder *b, lp_cursor *at, lp_ref pair, lp_ref first, int n, bool alone, void *arg) {
  const copy_place *p = arg;
  (void)n;
  lp_ref value = pair_of(b, b->c->scalar_op, first, alone);
  lp_stmt *s = lp_append(b->k, at, LS_STORE);
  s->buffer = b->rows, s->index = row_at(b, p->row, pair), s->value = value;
}

/* Zeros in the pairs that make the block whole tiles. */
static void fill(builder *b, lp_cursor *at, const copy_place *p, bool panel) {
  lp_kernel *k = b->k;
  int64_t have = b->size * inner_pairs(b->c), want = block_pairs(b->c, b->size), lanes = panel ? b->c->lanes : 1;
  if (have == want) return;
  int var = lp_var_add(k, "z", (want - have) * lanes);
  lp_cursor inside;
  lp_for(k, at, var, 0, (want - have) * lanes, (int)(panel ? lanes : TILE_PAIRS), &inside);
  lp_stmt *s = lp_append(k, &inside, LS_STORE);
  lp_ref z = lp_add(k, lp_var(k, var), lp_int(k, have * lanes));
  s->buffer = panel ? b->panels : b->rows, s->index = panel ? panel_at(b, p->slot, lp_int(k, 0), z) : row_at(b, p->row, z), s->value = lp_const_bits(k, TT_U32, 0);
  to_end(at);
}

typedef void panel_fn(builder *b, lp_cursor *at, copy_place *p);

/* The group's panels; width: the lanes of one that exist. */
static void each_panel(builder *b, lp_cursor *at, panel_fn *fn) {
  lp_kernel *k = b->k;
  contraction *c = b->c;
  int64_t full = extent(c, c->vec) / c->lanes, rest = extent(c, c->vec) % c->lanes;
  int var = lp_var_add(k, "s", c->group);
  lp_cursor loop;
  lp_for(k, at, var, 0, c->group, 0, &loop);
  lp_ref slot = lp_var(k, var), number = lp_add(k, lp_mul(k, b->group, c->group), slot);
  for (int part = 0; part < 2; part++) {
    if (part ? !rest : !full) continue;
    copy_place p = {.slot = slot, .width = part ? rest : c->lanes};
    bool all = !rest && full == c->group * c->n_groups;
    lp_cursor inside = loop;
    if (!all && full + (rest > 0) > 1) inside = only_if(b, &loop, lp_op(k, part ? IR_eq : IR_lt, TT_BOOL, number, lp_int(k, full), 0));
    p.panel = part ? lp_int(k, full) : all ? number : lp_mod(k, number, full);      /* itself, in a range that is known */
    fn(b, &inside, &p);
    to_end(&loop);
  }
  to_end(at);
}

static void pack_panel(builder *b, lp_cursor *at, copy_place *p) {
  const axis *v = &b->c->axes[b->c->vec];
  each_pair(b, at, 0, v->affine[b->c->vector_op] && v->stride[b->c->vector_op] == 1 ? 1 : 8, copy_panel, p);      /* lanes apart: columns of a square at once */
  fill(b, at, p, true);
}

/* The chunk's rows that exist: *row is the one in the chunk; the axes are placed there. */
static lp_cursor each_row(builder *b, lp_cursor *at, lp_ref *row) {
  lp_kernel *k = b->k;
  contraction *c = b->c;
  int64_t rows = c->chunk * c->tile, all = rows_in_all(c);
  int var = lp_var_add(k, "r", rows);
  lp_cursor inside;
  lp_for(k, at, var, 0, rows, 0, &inside);
  *row = lp_var(k, var);
  lp_ref number = lp_add(k, lp_mul(k, b->chunk, rows), *row);
  if (c->n_chunks * rows > all) inside = only_if(b, &inside, lp_op(k, IR_lt, TT_BOOL, number, lp_int(k, all), 0));
  place_row(b, lp_mod(k, number, all));
  return inside;
}

static lp_ref stage_at(builder *b, lp_ref row, lp_ref slot, lp_ref lane) {
  lp_kernel *k = b->k;
  return lp_add(k, lp_mul(k, lp_add(k, lp_mul(k, row, b->c->group), slot), b->c->lanes), lane);
}

static void store(builder *b, lp_cursor *at, lp_ref value) {
  lp_ref index[TT_MAX_RANK];
  con_result_at(b->c, b->k, b->at, index);
  con_store(b->c->lx, b->c->row, at, index, value);
}

/* `rows` rows from row `first` of the chunk on. */
static void one_tile(builder *b, lp_cursor *at, const copy_place *p, lp_ref first, int64_t rows) {
  lp_kernel *k = b->k;
  contraction *c = b->c;
  bool add = c->n_blocks > 1;
  if (c->cpu->amx) {
    lp_tiles *x = lp_alloc(k, sizeof *x);
    *x = (lp_tiles){.a = b->rows, .b = b->panels, .c = b->stage, .rows = (int32_t)rows, .lanes = (int32_t)c->lanes, .pairs = (int32_t)block_pairs(c, b->size),
                    .a_stride = b->row_stride, .b_stride = c->lanes, .c_stride = c->group * c->lanes, .add = add};
    lp_stmt *s = lp_append(k, at, LS_TILES);
    s->tiles = x, s->index = stage_at(b, first, p->slot, lp_int(k, 0)), s->value = row_at(b, first, lp_int(k, 0)), s->guard = panel_at(b, p->slot, lp_int(k, 0), lp_int(k, 0));
    return;
  }
  int lane_var = lp_var_add(k, "l", p->width), pair_var = lp_var_add(k, "p", b->size * inner_pairs(c)), acc = lp_local_add(k, "acc", TT_F32, (int)rows), v = lp_local_add(k, "v", TT_U32, 1);
  lp_cursor inside, body;
  lp_for(k, at, lane_var, 0, p->width, (int)c->lanes, &inside);
  lp_ref lane = lp_var(k, lane_var), pair = lp_var(k, pair_var);
  lp_stmt *s = lp_append(k, &inside, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, TT_F32, 0);
  lp_for(k, &inside, pair_var, 0, b->size * inner_pairs(c), 0, &body);
  s = lp_append(k, &body, LS_LOCAL);
  s->local = v, s->value = lp_load(k, b->panels, panel_at(b, p->slot, pair, lane), 0, 0);
  for (int64_t i = 0; i < rows; i++) {
    s = lp_append(k, &body, LS_SET);
    s->local = acc, s->index = lp_int(k, i);
    s->value = lp_dot(k, lp_load(k, b->rows, row_at(b, lp_add(k, first, lp_int(k, i)), pair), 0, 0), lp_get(k, v, 0), lp_get(k, acc, lp_int(k, i)));
  }
  to_end(&inside);
  b->at[c->vec] = lp_add(k, lp_mul(k, p->panel, c->lanes), lane);
  for (int64_t i = 0; i < rows; i++) {
    lp_ref row = lp_add(k, first, lp_int(k, i)), value = lp_get(k, acc, lp_int(k, i)), to = stage_at(b, row, p->slot, lane);
    if (b->stage < 0) {
      place_row(b, lp_mod(k, lp_add(k, lp_mul(k, b->chunk, c->chunk * c->tile), row), rows_in_all(c)));
      store(b, &inside, value);
      continue;
    }
    if (add) value = lp_op(k, IR_add, TT_F32, lp_load(k, b->stage, to, 0, 0), value, 0);
    s = lp_append(k, &inside, LS_STORE);
    s->buffer = b->stage, s->index = to, s->value = value;
  }
  to_end(at);
}

static void tiles_of_panel(builder *b, lp_cursor *at, copy_place *p) {
  lp_kernel *k = b->k;
  contraction *c = b->c;
  int64_t full = rows_in_all(c) / c->tile, rest = rows_in_all(c) % c->tile;
  if (c->cpu->amx && rest) full++, rest = 0;                       /* all of one size: registers have one shape in a function. What is past the last row nobody reads */
  int var = lp_var_add(k, "t", c->chunk);
  lp_cursor loop;
  lp_for(k, at, var, 0, c->chunk, 0, &loop);
  lp_ref t = lp_var(k, var), number = lp_add(k, lp_mul(k, b->chunk, c->chunk), t);
  for (int part = 0; part < 2; part++) {
    if (part ? !rest : !full) continue;
    lp_cursor inside = loop;
    if (full + (rest > 0) < c->chunk * c->n_chunks || (rest && full)) inside = only_if(b, &loop, lp_op(k, part ? IR_eq : IR_lt, TT_BOOL, number, lp_int(k, full), 0));
    one_tile(b, &inside, p, lp_mul(k, t, c->tile), part ? rest : c->tile);
    to_end(&loop);
  }
  to_end(at);
}

static void block(builder *b, lp_cursor *at) {
  each_panel(b, at, pack_panel);
  copy_place p = {0};
  lp_cursor inside = each_row(b, at, &p.row);
  each_pair(b, &inside, 16, 1, copy_row, &p);
  fill(b, &inside, &p, false);
  to_end(at);
  each_panel(b, at, tiles_of_panel);
}

static void finish_panel(builder *b, lp_cursor *at, copy_place *p) {
  lp_kernel *k = b->k;
  lp_ref row;
  lp_cursor inside = each_row(b, at, &row), lanes;
  int var = lp_var_add(k, "l", p->width);
  lp_for(k, &inside, var, 0, p->width, (int)b->c->lanes, &lanes);
  b->at[b->c->vec] = lp_add(k, lp_mul(k, p->panel, b->c->lanes), lp_var(k, var));
  store(b, &lanes, lp_load(k, b->stage, stage_at(b, row, p->slot, lp_var(k, var)), 0, 0));
  to_end(at);
}

void con_pairs_build(contraction *c) {
  lp_kernel *k = c->lx->k;
  builder all = {.c = c, .k = k, .stage = -1}, *b = &all;
  int64_t rows = c->chunk * c->tile, before = c->n_blocks - 1, sums = rows * c->group * c->lanes;
  b->steps = block_pairs(c, c->block), b->row_stride = b->steps + TILE_PAIRS;
  b->panels = lp_buffer_add(k, "panels", TT_U32, c->group * b->steps * c->lanes, true, true);
  b->rows = lp_buffer_add(k, "rows", TT_U32, rows * b->row_stride, true, true);
  bool staged = c->cpu->amx || c->n_blocks > 1 || c->slow;
  if (staged) b->stage = lp_buffer_add(k, "stage", TT_F32, sums, true, true);
  for (int i = 0; i < c->n_axes; i++) b->at[i] = lp_int(k, 0);
  con_unflatten(c, c->batch, c->n_batch, lp_div(k, c->task, c->n_groups * c->n_chunks), b->at);
  b->chunk = lp_mod(k, lp_div(k, c->task, c->n_groups), c->n_chunks), b->group = lp_mod(k, c->task, c->n_groups);
  lp_cursor body = c->body;
  if (c->n_blocks > 1) {
    int zero = lp_var_add(k, "z", sums);
    lp_cursor inside;
    lp_for(k, &body, zero, 0, sums, (int)c->lanes, &inside);
    lp_stmt *s = lp_append(k, &inside, LS_STORE);
    s->buffer = b->stage, s->index = lp_var(k, zero), s->value = lp_const(k, TT_F32, 0);
    to_end(&body);
  }
  b->size = c->block;
  if (before) {
    int var = lp_var_add(k, "b", before);
    lp_cursor loop;
    lp_for(k, &body, var, 0, before, 0, &loop);
    b->from = lp_mul(k, lp_var(k, var), c->block);
    block(b, &loop);
    to_end(&body);
  }
  b->from = lp_int(k, before * c->block), b->size = outermost(c) - before * c->block, b->last = true;
  block(b, &body);
  to_end(&body);
  if (staged) each_panel(b, &body, finish_panel);
}
