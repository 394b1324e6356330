/* contract_build.c: the loops of a contraction once all is chosen: packing, register tiles, epilogues; or dot products. */
#include <string.h>

#include "contract.h"

/* Values of a list of axes from one number that counts through them, the last fastest. */
static void unflatten(contraction *c, const int *list, int n, lp_ref flat, lp_ref *at) {
  for (int i = n - 1; i >= 0; i--) {
    int64_t e = c->axes[list[i]].extent;
    at[list[i]] = i ? lp_mod(c->lx->k, flat, e) : flat;
    flat = i ? lp_div(c->lx->k, flat, e) : flat;
  }
}

static lp_ref as_acc(contraction *c, lp_ref e) {
  lp_kernel *k = c->lx->k;
  return k->exprs[e].dtype == c->acc_type ? e : lp_op(k, IR_cast, c->acc_type, e, 0, 0);
}

static lp_ref multiply_add(contraction *c, lp_ref a, lp_ref b, lp_ref sum) {
  lp_kernel *k = c->lx->k;
  if (!tt_dtype_in(c->acc_type, TT_REAL)) return lp_op(k, IR_add, c->acc_type, lp_op(k, IR_mul, c->acc_type, a, b, 0), sum, 0);
  return lp_fma(k, a, b, sum);
}

/* Loops over the summed axes, merged where both operands allow it; block < 0: no cut. at gets their values; *flat counts steps
 * within the block. */
static lp_cursor sum_loops(contraction *c, lp_cursor at_cursor, lp_ref block, lp_ref *at, lp_ref *flat) {
  lp_kernel *k = c->lx->k;
  *flat = lp_int(k, 0);
  for (int i = 0; i < c->n_sum;) {
    int j = i + 1;
    int64_t extent = c->axes[c->sum[i]].extent;
    if (i == 0 && c->k_blocks > 1) extent /= c->k_blocks;
    else
      for (; j < c->n_sum; j++) {
        const axis *p = &c->axes[c->sum[j - 1]], *q = &c->axes[c->sum[j]];
        bool s = p->affine[c->scalar_op] && q->affine[c->scalar_op] && p->stride[c->scalar_op] == q->extent * q->stride[c->scalar_op];
        bool v = c->pack || (p->affine[c->vector_op] && q->affine[c->vector_op] && p->stride[c->vector_op] == q->extent * q->stride[c->vector_op]);
        if (!s || !v) break;
        extent *= q->extent;
      }
    int var = lp_var_add(k, "k", extent);
    lp_cursor inside;
    lp_for(k, &at_cursor, var, 0, extent, 0, &inside);
    at_cursor = inside;
    lp_ref value = lp_var(k, var);
    *flat = lp_add(k, lp_mul(k, *flat, extent), value);
    if (i == 0 && c->k_blocks > 1) value = lp_add(k, lp_mul(k, block, extent), value);
    unflatten(c, c->sum + i, j - i, value, at);
    i = j;
  }
  return at_cursor;
}

/* All values before the first store: a result may stand where something that the epilogue reads stood. */
static void store_results(contraction *c, lp_cursor *at_cursor, const lp_ref *at, lp_ref value) {
  enum { MOST = 16 };
  lower_ctx *lx = c->lx;
  const ir_node *n = ir_at(c->g, c->row);
  int count = lower_n_results(lx);
  lp_ref index[MOST], values[MOST], from[TT_MAX_RANK];
  if (lx->k->exprs[value].dtype != n->dtype) value = lp_op(lx->k, IR_cast, n->dtype, value, 0, 0);
  con_result_at(c, lx->k, at, from);
  lower_hook(lx, c->row, from, value);
  if (count > MOST) {
    tt_fail(lx->err, TT_INTERNAL, "contract: kernel %s has %d results, more than %d", c->g->kernels[lx->region].name, count, MOST);
    return;
  }
  for (int i = 0; i < count; i++) {
    lp_ref to[TT_MAX_RANK];
    if (!lower_push(lx, c->row, lower_result(lx, i), from, to)) return;      /* lower_push has failed the kernel */
    index[i] = lower_linear(lx, lower_result(lx, i), to);
    values[i] = lower_pull(lx, lower_result(lx, i), to);
    if (count == 1) break;
    lp_stmt *s = lp_append(lx->k, at_cursor, LS_LOCAL);
    s->local = lp_local_add(lx->k, "y", lx->k->exprs[values[i]].dtype, 1), s->value = values[i];
    values[i] = lp_get(lx->k, s->local, 0);
  }
  for (int i = 0; i < count; i++) {
    lp_stmt *s = lp_append(lx->k, at_cursor, LS_STORE);
    s->buffer = lower_result_buffer(lx, i), s->index = index[i], s->value = values[i];
  }
}

typedef struct { lp_ref panel, first_row, block; lp_ref at[MAX_AXES]; lp_ref stage_row; int64_t width; } tile_place;

/* One tile of `rows` rows at row number first_row. */
static void tile(contraction *c, lp_cursor *at_cursor, const tile_place *place, int64_t rows) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES];
  memcpy(at, place->at, sizeof at);
  int lane_var = lp_var_add(k, "l", place->width);
  lp_cursor inside;
  lp_for(k, at_cursor, lane_var, 0, place->width, (int)c->lanes, &inside);
  lp_ref lane = lp_var(k, lane_var);
  at[c->vec] = lp_add(k, lp_mul(k, place->panel, c->lanes), lane);

  int acc = lp_local_add(k, "acc", c->acc_type, (int)rows);
  lp_stmt *s = lp_append(k, &inside, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, c->acc_type, 0);
  if (c->k_blocks > 1)
    for (int64_t i = 0; i < rows; i++) {
      s = lp_append(k, &inside, LS_SET);
      s->local = acc, s->index = lp_int(k, i);
      s->value = lp_load(k, c->stage_buffer, lp_add(k, lp_mul(k, lp_add(k, place->stage_row, lp_int(k, i)), c->lanes), lane), 0, 0);
    }
  lp_ref flat;
  lp_cursor body = sum_loops(c, inside, place->block, at, &flat);
  int v = lp_local_add(k, "v", c->acc_type, 1);
  s = lp_append(k, &body, LS_LOCAL);
  s->local = v;
  s->value = as_acc(c, c->pack ? lp_load(k, c->panel_buffer, lp_add(k, lp_mul(k, flat, c->lanes), lane), 0, 0) : con_operand(c, c->lx, c->vector_op, at));
  for (int64_t i = 0; i < rows; i++) {
    unflatten(c, c->rows, c->n_rows, lp_add(k, place->first_row, lp_int(k, i)), at);
    s = lp_append(k, &body, LS_SET);
    s->local = acc, s->index = lp_int(k, i);
    s->value = multiply_add(c, as_acc(c, con_operand(c, c->lx, c->scalar_op, at)), lp_get(k, v, 0), lp_get(k, acc, lp_int(k, i)));
  }
  /* After the loops: sum_loops has left `inside` at its end only when it made none. */
  while (*inside.tail) inside.tail = &(*inside.tail)->next;
  for (int64_t i = 0; i < rows; i++) {
    lp_ref value = lp_get(k, acc, lp_int(k, i));
    if (c->staged) {
      s = lp_append(k, &inside, LS_STORE);
      s->buffer = c->stage_buffer;
      s->index = lp_add(k, lp_mul(k, lp_add(k, place->stage_row, lp_int(k, i)), c->lanes), lane);
      s->value = value;
    } else {
      unflatten(c, c->rows, c->n_rows, lp_add(k, place->first_row, lp_int(k, i)), at);
      store_results(c, &inside, at, value);
    }
  }
}

/* The same for one panel, or for all of them. */
static void tile_panels(contraction *c, lp_cursor *at_cursor, const tile_place *place, int64_t rows) {
  if (!c->inside) {
    tile(c, at_cursor, place, rows);
    return;
  }
  lp_kernel *k = c->lx->k;
  int64_t extent = c->axes[c->vec].extent, full = extent / c->lanes, rest = extent % c->lanes;
  tile_place here = *place;
  lp_cursor inside;
  int var = lp_var_add(k, "p", full);
  lp_for(k, at_cursor, var, 0, full, 0, &inside);
  here.panel = lp_var(k, var), here.width = c->lanes;
  tile(c, &inside, &here, rows);
  if (!rest) return;
  here.panel = lp_int(k, full), here.width = rest;
  tile(c, at_cursor, &here, rows);
}

/* n tiles of `rows` rows from row number `from` on (of the chunk's tiles when the rows are chunked). */
static void tiles(contraction *c, lp_cursor *at_cursor, tile_place place, lp_ref from, int64_t n, int64_t rows, lp_ref stage_from) {
  if (n <= 0) return;
  lp_kernel *k = c->lx->k;
  lp_cursor inside = *at_cursor;
  lp_ref t = lp_int(k, 0);
  if (n > 1) {
    int var = lp_var_add(k, "t", n);
    lp_for(k, at_cursor, var, 0, n, 0, &inside);
    t = lp_var(k, var);
  }
  place.first_row = lp_add(k, from, lp_mul(k, t, rows));
  place.stage_row = lp_add(k, stage_from, lp_mul(k, t, rows));
  tile_panels(c, &inside, &place, rows);
  if (n == 1) *at_cursor = inside;
}

static void pack_panel(contraction *c, lp_cursor *at_cursor, const tile_place *place) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES], flat;
  memcpy(at, place->at, sizeof at);
  for (int i = 0; i < c->n_rows; i++) at[c->rows[i]] = lp_int(k, 0);        /* the vectorized operand has none of these */
  for (int i = 0; i < c->n_outer; i++) at[c->outer[i]] = lp_int(k, 0);
  lp_cursor body = sum_loops(c, *at_cursor, place->block, at, &flat);
  const axis *v = &c->axes[c->vec];
  bool unit = v->affine[c->vector_op] && v->stride[c->vector_op] == 1;
  int var = lp_var_add(k, "l", place->width);
  lp_cursor inside;
  lp_stmt *loop = lp_for(k, &body, var, 0, place->width, unit ? (int)c->lanes : 0, &inside);
  loop->unroll = !unit;
  at[c->vec] = lp_add(k, lp_mul(k, place->panel, c->lanes), lp_var(k, var));
  lp_stmt *s = lp_append(k, &inside, LS_STORE);
  s->buffer = c->panel_buffer;
  s->index = lp_add(k, lp_mul(k, flat, c->lanes), lp_var(k, var));
  s->value = con_operand(c, c->lx, c->vector_op, at);
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

/* All rows of one panel of `width` <= lanes places. */
static void panel(contraction *c, lp_cursor *at_cursor, tile_place place, lp_ref chunk) {
  lp_kernel *k = c->lx->k;
  bool outer = c->n_outer_all > 1;
  int64_t all_tiles = (c->n_rows_all + c->tile - 1) / c->tile;
  int64_t stage_rows = outer ? c->chunk * c->n_rows_all : c->chunk * c->tile;
  lp_cursor body = *at_cursor;
  place.block = lp_int(k, 0);
  if (c->k_blocks > 1) {
    int zero = lp_var_add(k, "z", stage_rows * c->lanes), block = lp_var_add(k, "kb", c->k_blocks);
    lp_cursor inside;
    lp_for(k, at_cursor, zero, 0, stage_rows * c->lanes, (int)c->lanes, &inside);
    lp_stmt *s = lp_append(k, &inside, LS_STORE);
    s->buffer = c->stage_buffer, s->index = lp_var(k, zero), s->value = lp_const(k, c->acc_type, 0);
    lp_for(k, at_cursor, block, 0, c->k_blocks, 0, &body);
    place.block = lp_var(k, block);
  }
  if (c->pack) pack_panel(c, &body, &place);

  lp_cursor loop = body;
  if (outer) {
    int var = lp_var_add(k, "o", c->chunk);
    lp_ref o = lp_int(k, 0);
    if (c->chunk > 1) {
      lp_for(k, &body, var, 0, c->chunk, 0, &loop);
      o = lp_var(k, var);
    }
    unflatten(c, c->outer, c->n_outer, lp_add(k, lp_mul(k, chunk, c->chunk), o), place.at);
    int64_t low = all_tiles * c->tile - c->n_rows_all, high = all_tiles - low;     /* balanced: `low` tiles have a row less */
    lp_ref stage = lp_mul(k, o, c->n_rows_all);
    tiles(c, &loop, place, lp_int(k, 0), high, c->tile, stage);
    lp_ref at_low = lp_int(k, high * c->tile);
    tiles(c, &loop, place, at_low, low, c->tile - 1, lp_add(k, stage, at_low));
  } else if (c->n_chunks == 1) {
    int64_t low = all_tiles * c->tile - c->n_rows_all, high = all_tiles - low;
    tiles(c, &loop, place, lp_int(k, 0), high, c->tile, lp_int(k, 0));
    tiles(c, &loop, place, lp_int(k, high * c->tile), low, c->tile - 1, lp_int(k, high * c->tile));
  } else {
    int64_t full = c->n_rows_all / c->tile, rest = c->n_rows_all % c->tile;
    int var = lp_var_add(k, "t", c->chunk);
    lp_for(k, &loop, var, 0, c->chunk, 0, &loop);
    lp_ref t = lp_add(k, lp_mul(k, chunk, c->chunk), lp_var(k, var));
    lp_ref row = lp_mul(k, t, c->tile), stage = lp_mul(k, lp_var(k, var), c->tile);
    bool uneven = full % c->chunk != 0;
    for (int part = 0; part < (rest ? 2 : 1); part++) {
      lp_cursor inside = loop;
      if (uneven || rest) {
        lp_stmt *s = lp_append(k, &loop, LS_IF);
        s->guard = lp_op(k, part ? IR_eq : IR_lt, TT_BOOL, t, lp_int(k, full), 0);
        inside.tail = &s->body;
      }
      place.first_row = row, place.stage_row = stage;
      tile_panels(c, &inside, &place, part ? rest : c->tile);
      if (!uneven && !rest) loop = inside;
    }
  }
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
  if (!c->staged) return;

  /* The epilogue: once over the chunk's rows. */
  int var = lp_var_add(k, "r", stage_rows), lane_var = lp_var_add(k, "l", place.width);
  lp_cursor inside;
  lp_for(k, at_cursor, var, 0, stage_rows, 0, &inside);
  lp_ref r = lp_var(k, var);
  if (outer) {
    unflatten(c, c->outer, c->n_outer, lp_add(k, lp_mul(k, chunk, c->chunk), lp_div(k, r, c->n_rows_all)), place.at);
    unflatten(c, c->rows, c->n_rows, lp_mod(k, r, c->n_rows_all), place.at);
  } else {
    lp_ref row = lp_add(k, lp_mul(k, chunk, c->chunk * c->tile), r);
    if (c->n_chunks * stage_rows > c->n_rows_all) {
      lp_stmt *s = lp_append(k, &inside, LS_IF);
      s->guard = lp_op(k, IR_lt, TT_BOOL, row, lp_int(k, c->n_rows_all), 0);
      inside.tail = &s->body;
    }
    unflatten(c, c->rows, c->n_rows, row, place.at);
  }
  lp_cursor lanes;
  lp_for(k, &inside, lane_var, 0, place.width, (int)c->lanes, &lanes);
  place.at[c->vec] = lp_add(k, lp_mul(k, place.panel, c->lanes), lp_var(k, lane_var));
  store_results(c, &lanes, place.at, lp_load(k, c->stage_buffer, lp_add(k, lp_mul(k, r, c->lanes), lp_var(k, lane_var)), 0, 0));
}

/* Every result a dot product along the innermost summed axis. */
void con_dot_products(contraction *c) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES];
  lp_cursor body = c->body;
  for (int i = 0; i < c->n_axes; i++) at[i] = lp_int(k, 0);
  int var = lp_var_add(k, "i", c->per_task);
  lp_for(k, &body, var, 0, c->per_task, 0, &body);
  unflatten(c, c->batch, c->n_batch, lp_add(k, lp_mul(k, c->task, c->per_task), lp_var(k, var)), at);
  int acc = lp_local_add(k, "acc", c->acc_type, 1);
  lp_stmt *s = lp_append(k, &body, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, c->acc_type, 0);
  lp_cursor inside = body;
  for (int i = 0; i < c->n_sum; i++) {
    int64_t extent = c->axes[c->sum[i]].extent;
    int kv = lp_var_add(k, "k", extent);
    lp_for(k, &inside, kv, 0, extent, i == c->n_sum - 1 ? (int)c->lanes : 0, &inside);
    at[c->sum[i]] = lp_var(k, kv);
  }
  s = lp_append(k, &inside, LS_REDUCE);
  s->local = acc, s->op = IR_add;
  s->value = lp_op(k, IR_mul, c->acc_type, as_acc(c, con_operand(c, c->lx, A, at)), as_acc(c, con_operand(c, c->lx, B, at)), 0);
  while (*body.tail) body.tail = &(*body.tail)->next;
  store_results(c, &body, at, lp_get(k, acc, 0));
}

void con_count_tasks(contraction *c) {
  int64_t batches = 1, sum_all = 1, per_task = 1;
  for (int i = 0; i < c->n_batch; i++) batches *= c->axes[c->batch[i]].extent;
  for (int i = 0; i < c->n_sum; i++) sum_all *= c->axes[c->sum[i]].extent;
  if (c->dots) {
    while (per_task * sum_all < 16384 && per_task < batches) per_task *= 2;
    c->per_task = con_nearest_divisor(batches, per_task);
    c->n_tasks = batches / c->per_task;
  } else c->n_tasks = batches * c->n_chunks * (c->inside ? 1 : (c->axes[c->vec].extent + c->lanes - 1) / c->lanes);
}

void con_register_tiles(contraction *c) {
  lp_kernel *k = c->lx->k;
  int64_t extent = c->axes[c->vec].extent, full = extent / c->lanes, rest = extent % c->lanes, sum_all = 1;
  for (int i = 0; i < c->n_sum; i++) sum_all *= c->axes[c->sum[i]].extent;
  int64_t panels = c->inside ? 1 : full + (rest > 0);
  if (c->pack) c->panel_buffer = lp_buffer_add(k, "panel", ir_at(c->g, ir_at(c->g, c->row)->args[c->vector_op])->dtype, sum_all / c->k_blocks * c->lanes, true, true);
  if (c->staged) {
    int64_t stage_rows = c->n_outer_all > 1 ? c->chunk * c->n_rows_all : c->chunk * c->tile;
    c->stage_buffer = lp_buffer_add(k, "stage", c->acc_type, stage_rows * c->lanes, true, true);
  }
  lp_ref task = c->task, chunk = lp_mod(k, lp_div(k, task, panels), c->n_chunks);
  tile_place place = {.panel = lp_mod(k, task, panels)};
  for (int i = 0; i < c->n_axes; i++) place.at[i] = lp_int(k, 0);
  unflatten(c, c->batch, c->n_batch, lp_div(k, task, panels * c->n_chunks), place.at);
  lp_cursor body = c->body;
  if (c->inside) {
    panel(c, &body, place, chunk);
    return;
  }
  for (int part = 0; part < 2; part++) {
    place.width = part ? rest : c->lanes;
    if (part ? !rest : !full) continue;
    lp_cursor inside = body;
    if (full && rest) {
      lp_stmt *s = lp_append(k, &body, LS_IF);
      s->guard = lp_op(k, part ? IR_eq : IR_lt, TT_BOOL, place.panel, lp_int(k, full), 0);
      inside.tail = &s->body;
    }
    tile_place here = place;
    if (part || !rest) here.panel = full && part ? lp_int(k, full) : panels == 1 ? lp_int(k, 0) : place.panel;
    else here.panel = lp_mod(k, place.panel, full);    /* itself, but its range says that the lanes stay inside of the axis */
    panel(c, &inside, here, chunk);
  }
}
