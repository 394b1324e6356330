/* contract_build.c: the loops of a contraction once all is chosen: packing, register tiles, epilogues; or dot products. */
#include <stdlib.h>
#include <string.h>

#include "contract.h"

void con_unflatten(contraction *c, const int *list, int n, lp_ref flat, lp_ref *at) {
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

typedef struct {
  lp_ref panel, slot;           /* number of the panel; of it in its group */
  lp_ref chunk, first_row, stage_row;
  lp_ref block_from; int64_t block_size; bool first_block, last_block;      /* of the outermost summed axis */
  lp_ref at[MAX_AXES], flat;    /* flat: step of the sum, where it is packed */
  int64_t width;                /* places of the panel that exist */
  lp_ref number;                /* of the tile in its chunk, all outer places counted */
  lp_ref packed;                /* 0, or: the first tile of the chunk is done already where this holds */
  bool packing;
} tile_place;

static int64_t sum_extent(const contraction *c, int from) {
  int64_t n = 1;
  for (int i = from; i < c->n_sum; i++) n *= c->axes[c->sum[i]].extent;
  return n;
}

static int64_t stage_rows(const contraction *c) { return c->n_outer_all > 1 ? c->chunk * c->n_rows_all : c->chunk_rows ? c->chunk_rows : c->chunk * c->tile; }

/* Loops over the summed axes, the outermost within the block, merged where both operands allow it. at gets their values; *flat counts steps
 * within the block. */
static lp_cursor sum_loops(contraction *c, lp_cursor at_cursor, const tile_place *place, lp_ref *at, lp_ref *flat) {
  lp_kernel *k = c->lx->k;
  *flat = lp_int(k, 0);
  for (int i = 0; i < c->n_sum;) {
    int j = i + 1;
    int64_t extent = c->axes[c->sum[i]].extent;
    if (i == 0 && c->n_blocks > 1) extent = place->block_size, j = c->cut;
    else
      for (; j < c->n_sum; j++) {
        const axis *p = &c->axes[c->sum[j - 1]], *q = &c->axes[c->sum[j]];
        bool s = p->affine[c->scalar_op] && q->affine[c->scalar_op] && p->stride[c->scalar_op] == q->extent * q->stride[c->scalar_op];
        bool v = c->pack || (p->affine[c->vector_op] && q->affine[c->vector_op] && p->stride[c->vector_op] == q->extent * q->stride[c->vector_op]);
        if (!s || !v) break;
        extent *= q->extent;
      }
    int64_t by = i > 0 && j == c->n_sum && extent > CON_SHORT && extent % 4 == 0 ? 4 : 1;      /* a nested loop's end is mispredicted less when it is reached in fewer steps */
    int var = lp_var_add(k, "k", extent / by), fine = lp_var_add(k, "j", by);
    lp_cursor inside;
    lp_for(k, &at_cursor, var, 0, extent / by, 0, &inside)->unroll = (i > 0 || c->along) && j == c->n_sum && extent <= CON_SHORT;
    at_cursor = inside;
    if (by > 1) {
      lp_for(k, &at_cursor, fine, 0, by, 0, &inside)->unroll = true;
      at_cursor = inside;
    }
    lp_ref value = by > 1 ? lp_add(k, lp_mul(k, lp_var(k, var), by), lp_var(k, fine)) : lp_var(k, var);
    *flat = lp_add(k, lp_mul(k, *flat, extent), value);
    if (i == 0 && c->n_blocks > 1) value = lp_add(k, place->block_from, value);
    con_unflatten(c, c->sum + i, j - i, value, at);
    i = j;
  }
  return at_cursor;
}

/* Element numbers in scratch. flat: steps of the sum within the block; row: of the chunk. */
static lp_ref panel_index(contraction *c, const tile_place *place, lp_ref flat, lp_ref lane) {
  lp_kernel *k = c->lx->k;
  int64_t inner = sum_extent(c, c->cut), steps = c->keep ? sum_extent(c, 0) : c->block * inner;
  if (c->once) return lp_add(k, lp_mul(k, flat, c->lanes), lane);
  if (c->keep) flat = lp_add(k, flat, lp_mul(k, place->block_from, inner));
  return lp_add(k, lp_mul(k, lp_add(k, lp_mul(k, place->slot, steps), flat), c->lanes), lane);
}

static lp_ref stage_index(contraction *c, const tile_place *place, lp_ref row, lp_ref lane) {
  lp_kernel *k = c->lx->k;
  return lp_add(k, lp_mul(k, lp_add(k, lp_mul(k, row, c->group), place->slot), c->lanes), lane);
}

enum { ROW_PAD = 16 /* between copied rows, so that those of a tile fall into different sets of L1 */, MOST_RESULTS = 16 };

static lp_ref row_index(contraction *c, const tile_place *place, int64_t rows, lp_ref i, lp_ref flat) {
  lp_kernel *k = c->lx->k;
  if (c->copy_rows) return lp_add(k, lp_add(k, lp_mul(k, place->stage_row, c->block), lp_mul(k, flat, rows)), i);
  return lp_add(k, lp_mul(k, lp_add(k, place->stage_row, i), c->block + ROW_PAD), flat);
}

/* All values before the first store: a result may stand where something that the epilogue reads stood. */
void con_store(lower_ctx *lx, ir_ref row, lp_cursor *at_cursor, const lp_ref *from, lp_ref value) {
  const ir_node *n = ir_at(lx->g, row);
  int count = 0, which[MOST_RESULTS];
  lp_ref index[MOST_RESULTS], values[MOST_RESULTS];
  if (lx->k->exprs[value].dtype != n->dtype) value = lp_op(lx->k, IR_cast, n->dtype, value, 0, 0);
  lower_hook(lx, row, from, value);
  if (lower_n_results(lx) > MOST_RESULTS) {
    tt_fail(lx->err, TT_INTERNAL, "contract: kernel %s has %d results, more than %d", lx->g->kernels[lx->region].name, lower_n_results(lx), MOST_RESULTS);
    return;
  }
  for (int i = 0; i < lower_n_results(lx); i++)
    if (lower_n_results(lx) == 1 || !ir_is_attention((ir_op)n->op) || lower_leads(lx, row, lower_result(lx, i))) which[count++] = i;      /* attention may have others beside it */
  for (int i = 0; i < count; i++) {
    lp_ref to[TT_MAX_RANK];
    ir_ref result = lower_result(lx, which[i]);
    if (!lower_push(lx, row, result, from, to)) return;                   /* lower_push has failed the kernel */
    index[i] = lower_linear(lx, result, to);
    values[i] = lower_pull(lx, result, to);
    if (count == 1) break;
    lp_stmt *s = lp_append(lx->k, at_cursor, LS_LOCAL);
    s->local = lp_local_add(lx->k, "y", lx->k->exprs[values[i]].dtype, 1), s->value = values[i];
    values[i] = lp_get(lx->k, s->local, 0);
  }
  for (int i = 0; i < count; i++) {
    lp_stmt *s = lp_append(lx->k, at_cursor, LS_STORE);
    s->buffer = lower_result_buffer(lx, which[i]), s->index = index[i], s->value = values[i];
  }
}

static void store_results(contraction *c, lp_cursor *at_cursor, const lp_ref *at, lp_ref value) {
  lp_ref index[TT_MAX_RANK];
  con_result_at(c, c->lx->k, at, index);
  con_store(c->lx, c->row, at_cursor, index, value);
}

/* What load x reads some steps of the loop over `flat` later. */
static void prefetch_ahead(contraction *c, lp_cursor *at_cursor, lp_ref x, lp_ref flat) {
  enum { AHEAD = 32 };
  lp_kernel *k = c->lx->k;
  x = con_load(k, x);
  if (k->exprs[x].kind != LX_LOAD || k->exprs[flat].kind != LX_VAR) return;
  lp_stmt *s = lp_append(k, at_cursor, LS_PREFETCH);
  s->op = 2;                           /* rows of a power of two fall into few sets of L1 */
  s->buffer = (int)k->exprs[x].imm, s->index = lp_subst(k, k->exprs[x].a[0], (int)k->exprs[flat].imm, lp_add(k, flat, lp_int(k, AHEAD)));
}

/* What the next panel will be packed from is asked for by all tiles of this one, each its share, some lines ahead of every `piece` steps: at once it
 * would be bound by the memory's latency, and in every step it would take the place of a load. */
static void prefetch_next(contraction *c, lp_cursor *at_cursor, const tile_place *place, const lp_ref *now, lp_ref lane, lp_ref piece, int64_t length) {
  lp_kernel *k = c->lx->k;
  int64_t lines = (length + c->chunk - 1) / c->chunk, line = 64 / (int64_t)tt_dtype_size(ir_at(c->g, ir_at(c->g, c->row)->args[c->vector_op])->dtype);
  lp_ref at[MAX_AXES];
  memcpy(at, now, sizeof at);
  int var = lp_var_add(k, "q", lines);
  lp_cursor inside = *at_cursor;
  if (c->n_chunks > 1) {                                 /* later chunks read panels that are packed */
    lp_stmt *s = lp_append(k, at_cursor, LS_IF);
    s->guard = place->packed;
    inside.tail = &s->body;
  }
  lp_for(k, &inside, var, 0, lines, 0, &inside)->unroll = lines <= 2 * CON_SHORT;
  lp_ref step = lp_add(k, lp_add(k, lp_mul(k, place->number, place->block_size / c->chunk), lp_mul(k, piece, lines)), lp_var(k, var));
  at[c->vec] = lp_add(k, lp_mul(k, lp_add(k, place->panel, lp_int(k, 1)), c->lanes), lp_add(k, lane, lp_int(k, line - 1)));      /* rows need not begin with a line */
  at[c->sum[0]] = lp_add(k, place->block_from, step);
  lp_ref x = con_load(k, con_operand(c, c->lx, c->vector_op, at));
  lp_stmt *s = lp_append(k, &inside, LS_PREFETCH);
  s->op = 2, s->buffer = (int)k->exprs[x].imm, s->index = k->exprs[x].a[0];
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

/* What the rows of the next chunk read, in equal shares of the tiles and panels of this one. */
static void ask_for_rows(contraction *c, lp_cursor *at_cursor, const tile_place *place) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES], next = lp_add(k, place->chunk, lp_int(k, 1)), panel = c->keep ? place->slot : place->panel;
  memcpy(at, place->at, sizeof at);
  for (int i = 0; i < c->n_sum; i++) at[c->sum[i]] = lp_int(k, 0);
  at[c->vec] = lp_int(k, 0);
  int64_t panels = (c->axes[c->vec].extent + c->lanes - 1) / c->lanes, sharing = c->keep ? c->group : panels;
  if (c->n_outer_all > 1) {
    con_unflatten(c, c->rows, c->n_rows, lp_int(k, 0), at);
    con_unflatten(c, c->outer, c->n_outer, lp_mul(k, next, c->chunk), at);
  } else {
    con_unflatten(c, c->rows, c->n_rows, lp_mul(k, next, c->chunk_rows ? c->chunk_rows : c->chunk * c->tile), at);
  }
  lp_ref x = con_operand(c, c->lx, c->scalar_op, at);
  if (k->exprs[x].kind != LX_LOAD) return;
  int64_t line = 64 / (int64_t)tt_dtype_size(k->exprs[x].dtype), lines = (c->rows_ahead + line - 1) / line, tiles = c->chunk * (c->n_outer_all > 1 ? (c->n_rows_all + c->tile - 1) / c->tile : 1);
  int64_t each = (lines + tiles * sharing - 1) / (tiles * sharing), askers = (lines + tiles * each - 1) / (tiles * each);
  lp_cursor inside = *at_cursor;
  if (askers < sharing) {
    lp_stmt *s = lp_append(k, at_cursor, LS_IF);
    s->guard = lp_op(k, IR_lt, TT_BOOL, panel, lp_int(k, askers), 0);
    inside.tail = &s->body;
  }
  int var = lp_var_add(k, "q", each);
  lp_for(k, &inside, var, 0, each, 0, &inside)->unroll = each <= CON_SHORT;
  lp_ref number = lp_add(k, lp_mul(k, lp_add(k, lp_mul(k, panel, tiles), place->number), each), lp_var(k, var));
  lp_stmt *s = lp_append(k, &inside, LS_PREFETCH);
  s->op = 2, s->buffer = (int)k->exprs[x].imm, s->index = lp_add(k, k->exprs[x].a[0], lp_mul(k, number, line));
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

/* What the next block's rows are copied from: some elements of lines far from each other, which no hardware asks for ahead. Each tile asks for its share of them. */
static void ask_for_copy(contraction *c, lp_cursor *at_cursor, const tile_place *place) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES], chunk = place->chunk, from = lp_add(k, place->block_from, lp_int(k, c->block));
  int64_t rows = stage_rows(c), bytes = (int64_t)tt_dtype_size(ir_at(c->g, ir_at(c->g, c->row)->args[c->scalar_op])->dtype), line = 64 / bytes, tiles = c->chunk * c->group;
  int64_t lines = (rows + line - 1) / line + (rows % line || con_magnitude(&c->axes[c->sum[0]], c->scalar_op) % line), steps = (c->block + tiles - 1) / tiles;
  if (place->last_block) {                               /* the next task begins with the first */
    from = lp_int(k, 0);
    if (c->keep || c->n_groups == 1) chunk = lp_mod(k, lp_add(k, chunk, lp_int(k, 1)), c->n_chunks);
  }
  memcpy(at, place->at, sizeof at);
  int step = lp_var_add(k, "q", steps), var = lp_var_add(k, "l", lines);
  at[c->vec] = lp_int(k, 0);
  at[c->sum[0]] = lp_add(k, from, lp_add(k, lp_mul(k, lp_add(k, lp_mul(k, place->slot, c->chunk), place->number), steps), lp_var(k, step)));
  con_unflatten(c, c->rows, c->n_rows, lp_mul(k, chunk, rows), at);
  lp_ref load = con_load(k, con_operand(c, c->lx, c->scalar_op, at));      /* makes expressions: k->exprs moves */
  lp_expr x = k->exprs[load];
  if (x.kind != LX_LOAD || k->buffers[x.imm].count * bytes <= c->cpu->l2) return;
  lp_cursor inside;
  lp_for(k, at_cursor, step, 0, steps, 0, &inside)->unroll = steps * lines <= 2 * CON_SHORT;
  lp_for(k, &inside, var, 0, lines, 0, &inside)->unroll = lines <= 2 * CON_SHORT;
  lp_stmt *s = lp_append(k, &inside, LS_PREFETCH);
  s->op = 2, s->buffer = (int)x.imm, s->index = lp_add(k, x.a[0], lp_mul(k, lp_var(k, var), line));
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

static lp_cursor pieces(contraction *c, lp_cursor at_cursor, const tile_place *place, lp_ref *at, lp_ref lane, lp_ref *flat) {
  lp_kernel *k = c->lx->k;
  int64_t length = con_nearest_divisor(place->block_size, 96), n = place->block_size / length;
  int piece = lp_var_add(k, "j", n), var = lp_var_add(k, "k", length);
  if (n > 1) lp_for(k, &at_cursor, piece, 0, n, 0, &at_cursor);
  lp_ref j = n > 1 ? lp_var(k, piece) : lp_int(k, 0);
  prefetch_next(c, &at_cursor, place, at, lane, j, length);
  lp_for(k, &at_cursor, var, 0, length, 0, &at_cursor);
  *flat = lp_add(k, lp_mul(k, j, length), lp_var(k, var));
  at[c->sum[0]] = lp_add(k, place->block_from, *flat);
  return at_cursor;
}

static void find_loads(const lp_kernel *k, lp_ref e, bool *seen) {
  if (!e || seen[e]) return;
  seen[e] = true;
  for (int i = 0; i < 3; i++) find_loads(k, k->exprs[e].a[i], seen);
}

/* What the epilogue reads beside the sums (a residual, a gradient's factor, the moments of an update) is in lines far from each other, one or two a row: as they are met
 * there, each would be waited for. Asked for ahead of the tile's products, they come meanwhile. */
static void ask_for_epilogue(contraction *c, lp_cursor *at_cursor, const tile_place *place, int lane_var, lp_ref sum, int64_t rows) {
  lp_kernel *k = c->lx->k;
  const ir_node *n = ir_at(c->g, c->row);
  lp_ref at[MAX_AXES], from[TT_MAX_RANK], to[TT_MAX_RANK];
  memcpy(at, place->at, sizeof at);
  int row = lp_var_add(k, "r", rows);
  at[c->vec] = lp_add(k, lp_mul(k, place->panel, c->lanes), lp_var(k, lane_var));
  con_unflatten(c, c->rows, c->n_rows, lp_add(k, place->first_row, lp_var(k, row)), at);
  con_result_at(c, k, at, from);
  lower_hook(c->lx, c->row, from, k->exprs[sum].dtype == n->dtype ? sum : lp_op(k, IR_cast, n->dtype, sum, 0, 0));
  bool any = false;
  lp_ref values[MOST_RESULTS] = {0};
  for (int i = 0; i < lower_n_results(c->lx) && i < MOST_RESULTS; i++)
    if (lower_push(c->lx, c->row, lower_result(c->lx, i), from, to)) values[i] = lower_pull(c->lx, lower_result(c->lx, i), to);
  bool *seen = calloc(k->n_exprs, sizeof *seen);
  lp_cursor inside = *at_cursor;
  for (int i = 0; seen && i < MOST_RESULTS; i++) find_loads(k, values[i], seen);
  for (uint32_t e = 1, most = seen ? k->n_exprs : 0; e < most; e++) {
    lp_expr x = k->exprs[e];
    int64_t by, bytes = (int64_t)tt_dtype_size(k->buffers[x.kind == LX_LOAD ? x.imm : 0].dtype);
    if (!seen[e] || x.kind != LX_LOAD || k->buffers[x.imm].scratch || k->buffers[x.imm].count * bytes <= c->cpu->l1d) continue;
    if (!lp_affine(k, x.a[0], lane_var, &by) || by != 1 || !lp_depends(k, x.a[0], row)) continue;
    if (!any) lp_for(k, at_cursor, row, 0, rows, 0, &inside)->unroll = any = true;
    lp_stmt *s = lp_append(k, &inside, LS_PREFETCH);
    s->buffer = (int)x.imm, s->index = x.a[0];
  }
  free(seen);
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

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

  if (c->copy_rows) ask_for_copy(c, &inside, place);
  if (c->rows_ahead && place->first_block) ask_for_rows(c, &inside, place);
  int acc = lp_local_add(k, "acc", c->acc_type, (int)rows);
  lp_stmt *s = lp_append(k, &inside, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, c->acc_type, 0);
  if (place->last_block && rows > 1) ask_for_epilogue(c, &inside, place, lane_var, lp_get(k, acc, lp_int(k, 0)), rows);
  lp_ref flat;
  lp_cursor body = c->next ? pieces(c, inside, place, at, lane, &flat) : sum_loops(c, inside, place, at, &flat);
  int v = lp_local_add(k, "v", c->acc_type, 1);
  s = lp_append(k, &body, LS_LOCAL);
  s->local = v;
  if (place->packing) {                /* read where it stands, ahead of the hardware, and left in the panel for the tiles to come */
    lp_ref x = con_operand(c, c->lx, c->vector_op, at);
    s->value = as_acc(c, x);
    s = lp_append(k, &body, LS_STORE);
    s->buffer = c->panel_buffer, s->index = panel_index(c, place, flat, lane), s->value = x;
    prefetch_ahead(c, &body, x, flat);
  } else {
    lp_ref x = c->pack ? lp_load(k, c->panel_buffer, panel_index(c, place, flat, lane), 0, 0) : con_operand(c, c->lx, c->vector_op, at);
    s->value = as_acc(c, x);
    if (c->ahead) prefetch_ahead(c, &body, x, flat);
  }
  for (int64_t i = 0; i < rows; i++) {
    con_unflatten(c, c->rows, c->n_rows, lp_add(k, place->first_row, lp_int(k, i)), at);
    s = lp_append(k, &body, LS_SET);
    s->local = acc, s->index = lp_int(k, i);
    lp_ref x = c->copy ? lp_load(k, c->rows_buffer, row_index(c, place, rows, lp_int(k, i), flat), 0, 0) : con_operand(c, c->lx, c->scalar_op, at);
    s->value = multiply_add(c, as_acc(c, x), lp_get(k, v, 0), lp_get(k, acc, lp_int(k, i)));
  }
  /* After the loops: sum_loops has left `inside` at its end only when it made none. Earlier blocks' sums are added here, where nothing waits for them. */
  while (*inside.tail) inside.tail = &(*inside.tail)->next;
  for (int64_t i = 0; i < rows; i++) {
    lp_ref value = lp_get(k, acc, lp_int(k, i)), to = stage_index(c, place, lp_add(k, place->stage_row, lp_int(k, i)), lane);
    if (!place->first_block) value = lp_op(k, IR_add, c->acc_type, lp_load(k, c->stage_buffer, to, 0, 0), value, 0);
    if (!place->last_block || c->slow) {
      s = lp_append(k, &inside, LS_STORE);
      s->buffer = c->stage_buffer, s->index = to, s->value = value;
    } else {
      con_unflatten(c, c->rows, c->n_rows, lp_add(k, place->first_row, lp_int(k, i)), at);
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
  here.panel = here.slot = lp_var(k, var), here.width = c->lanes;
  tile(c, &inside, &here, rows);
  if (!rest) return;
  here.panel = here.slot = lp_int(k, full), here.width = rest;
  tile(c, at_cursor, &here, rows);
}

/* The rows of a tile into scratch, for all panels of the group: one step of the sum where the rows lie together, else the whole block. */
static void copy_tile(contraction *c, lp_cursor *at_cursor, const tile_place *place, int64_t rows) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES], flat = place->flat;
  memcpy(at, place->at, sizeof at);
  at[c->vec] = lp_int(k, 0);                                   /* the scalar operand has no such axis */
  int row = lp_var_add(k, "r", rows);
  lp_ref i = lp_var(k, row);
  lp_cursor body = *at_cursor;
  if (c->copy_rows) {
    lp_for(k, &body, row, 0, rows, (int)(rows < 4 ? 1 : rows < 8 ? 4 : 8), &body);
  } else {
    int var = lp_var_add(k, "k", place->block_size);
    flat = lp_var(k, var);
    lp_for(k, &body, row, 0, rows, 0, &body);
    lp_for(k, &body, var, 0, place->block_size, (int)(place->block_size < 32 ? place->block_size : 32), &body);
    at[c->sum[0]] = lp_add(k, place->block_from, flat);
  }
  con_unflatten(c, c->rows, c->n_rows, lp_add(k, place->first_row, i), at);
  lp_stmt *s = lp_append(k, &body, LS_STORE);
  s->buffer = c->rows_buffer;
  s->index = row_index(c, place, rows, i, flat);
  s->value = con_operand(c, c->lx, c->scalar_op, at);
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

typedef void tile_fn(contraction *c, lp_cursor *at_cursor, const tile_place *place, int64_t rows);

/* n tiles of `rows` rows from row number `from` on, `number` the first of them in the chunk, which is left out where skip holds (0: never). */
static void tiles(contraction *c, lp_cursor *at_cursor, tile_place place, lp_ref from, int64_t n, int64_t rows, lp_ref stage_from, lp_ref skip, lp_ref number, tile_fn *fn) {
  lp_kernel *k = c->lx->k;
  int64_t begin = skip == lp_const(k, TT_BOOL, 1);
  if (n <= begin) return;
  lp_cursor inside = *at_cursor;
  lp_ref t = lp_int(k, begin);
  if (n > begin + 1) {
    int var = lp_var_add(k, "t", n);
    lp_for(k, at_cursor, var, begin, n, 0, &inside);
    t = lp_var(k, var);
  }
  if (skip && !begin) {
    lp_stmt *s = lp_append(k, &inside, LS_IF);
    s->guard = lp_op(k, IR_or, TT_BOOL, lp_op(k, IR_not, TT_BOOL, skip, 0, 0), lp_op(k, IR_gt, TT_BOOL, t, lp_int(k, 0), 0), 0);
    inside.tail = &s->body;
  }
  place.first_row = lp_add(k, from, lp_mul(k, t, rows));
  place.stage_row = lp_add(k, stage_from, lp_mul(k, t, rows));
  place.number = lp_add(k, t, number);
  fn(c, &inside, &place, rows);
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

/* All tiles of the chunk. Where all chunks have as many rows they are balanced: the last `low` have a row less; else the very last has what is left. */
static void chunk_tiles(contraction *c, lp_cursor *at_cursor, tile_place place, tile_fn *fn) {
  lp_kernel *k = c->lx->k;
  int64_t rows = c->n_outer_all > 1 ? c->n_rows_all : c->chunk_rows, all_tiles = (rows + c->tile - 1) / c->tile, low = all_tiles * c->tile - rows, high = all_tiles - low;
  lp_cursor loop = *at_cursor;
  if (c->n_outer_all > 1 || c->chunk_rows) {
    lp_ref stage = lp_int(k, 0), number = stage, at_low = lp_int(k, high * c->tile), from = c->n_outer_all > 1 ? lp_int(k, 0) : lp_mul(k, place.chunk, rows);
    if (c->n_outer_all > 1) {
      int var = lp_var_add(k, "o", c->chunk);
      lp_ref o = lp_int(k, 0);
      if (c->chunk > 1) {
        lp_for(k, at_cursor, var, 0, c->chunk, 0, &loop);
        o = lp_var(k, var);
      }
      con_unflatten(c, c->outer, c->n_outer, lp_add(k, lp_mul(k, place.chunk, c->chunk), o), place.at);
      stage = lp_mul(k, o, c->n_rows_all), number = lp_mul(k, o, all_tiles);
    }
    tiles(c, &loop, place, from, high, c->tile, stage, place.packed, number, fn);
    tiles(c, &loop, place, lp_add(k, from, at_low), low, c->tile - 1, lp_add(k, stage, at_low), 0, lp_add(k, number, lp_int(k, high)), fn);
  } else {
    int64_t full = c->n_rows_all / c->tile, rest = c->n_rows_all % c->tile;
    int var = lp_var_add(k, "t", c->chunk);
    lp_for(k, &loop, var, 0, c->chunk, 0, &loop);
    lp_ref t = lp_add(k, lp_mul(k, place.chunk, c->chunk), lp_var(k, var));
    place.first_row = lp_mul(k, t, c->tile), place.stage_row = lp_mul(k, lp_var(k, var), c->tile), place.number = lp_var(k, var);
    bool uneven = full % c->chunk != 0;
    for (int part = 0; part < (rest ? 2 : 1); part++) {
      lp_cursor inside = loop;
      lp_ref guard = uneven || rest ? lp_op(k, part ? IR_eq : IR_lt, TT_BOOL, t, lp_int(k, full), 0) : 0;
      if (!part && place.packed) {
        lp_ref to_do = lp_op(k, IR_or, TT_BOOL, lp_op(k, IR_not, TT_BOOL, place.packed, 0, 0), lp_op(k, IR_gt, TT_BOOL, lp_var(k, var), lp_int(k, 0), 0), 0);
        guard = guard ? lp_op(k, IR_and, TT_BOOL, guard, to_do, 0) : to_do;
      }
      if (guard) {
        lp_stmt *s = lp_append(k, &loop, LS_IF);
        s->guard = guard;
        inside.tail = &s->body;
      }
      if (guard && full) place.first_row = part ? lp_int(k, full * c->tile) : lp_mul(k, lp_mod(k, t, full), c->tile);      /* t*tile, but its range says that the rows are there */
      fn(c, &inside, &place, part ? rest : c->tile);
      if (!guard) loop = inside;
    }
  }
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

/* The group's panels, one after the other or within `inside`: fn for those that are full, and for the last when it is not. */
typedef void panel_fn(contraction *c, lp_cursor *at_cursor, tile_place place);

static void group_panels(contraction *c, lp_cursor *at_cursor, tile_place place, lp_ref group, panel_fn *fn) {
  lp_kernel *k = c->lx->k;
  int64_t extent = c->axes[c->vec].extent, full = extent / c->lanes, rest = extent % c->lanes;
  lp_cursor body = *at_cursor;
  place.slot = lp_int(k, 0);
  if (c->group > 1) {
    int var = lp_var_add(k, "p", c->group);
    lp_for(k, &body, var, 0, c->group, 0, &body);
    place.slot = lp_var(k, var);
  }
  lp_ref number = lp_add(k, lp_mul(k, group, c->group), place.slot);
  bool all_full = !rest && full % c->group == 0;
  for (int part = 0; part < 2; part++) {
    if (part ? !rest : !full) continue;
    place.width = part ? rest : c->lanes;
    lp_cursor inside = body;
    if (!all_full && full + (rest > 0) > 1) {
      lp_stmt *s = lp_append(k, &body, LS_IF);
      s->guard = lp_op(k, part ? IR_eq : IR_lt, TT_BOOL, number, lp_int(k, full), 0);
      inside.tail = &s->body;
    }
    place.panel = part ? lp_int(k, full) : all_full ? number : lp_mod(k, number, full);     /* itself, but its range says that the lanes stay inside of the axis */
    fn(c, &inside, place);
  }
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

/* One step of the sum of a panel. */
static void pack_step(contraction *c, lp_cursor *at_cursor, tile_place place) {
  lp_kernel *k = c->lx->k;
  int var = lp_var_add(k, "l", place.width);
  lp_cursor inside;
  lp_for(k, at_cursor, var, 0, place.width, (int)c->lanes, &inside);
  place.at[c->vec] = lp_add(k, lp_mul(k, place.panel, c->lanes), lp_var(k, var));
  lp_stmt *s = lp_append(k, &inside, LS_STORE);
  s->buffer = c->panel_buffer;
  s->index = panel_index(c, &place, place.flat, lp_var(k, var));
  s->value = con_operand(c, c->lx, c->vector_op, place.at);
}

static void pack_panel(contraction *c, lp_cursor *at_cursor, tile_place place) {
  lp_cursor body = sum_loops(c, *at_cursor, &place, place.at, &place.flat);
  pack_step(c, &body, place);
  while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
}

/* In the order in which the operand lies: across the panels of the group where its vector axis is the contiguous one. */
static void pack_group(contraction *c, lp_cursor *at_cursor, tile_place place, lp_ref group) {
  const axis *v = &c->axes[c->vec];
  for (int i = 0; i < c->n_rows; i++) place.at[c->rows[i]] = lp_int(c->lx->k, 0);        /* the vectorized operand has none of these */
  for (int i = 0; i < c->n_outer; i++) place.at[c->outer[i]] = lp_int(c->lx->k, 0);
  if (v->affine[c->vector_op] && v->stride[c->vector_op] == 1) {
    lp_cursor body = sum_loops(c, *at_cursor, &place, place.at, &place.flat);
    group_panels(c, &body, place, group, pack_step);
    while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
  } else {
    group_panels(c, at_cursor, place, group, pack_panel);
  }
}

static void panel_tiles(contraction *c, lp_cursor *at_cursor, tile_place place) {
  lp_kernel *k = c->lx->k;
  if (c->pack_first) {
    tile_place first = place;
    first.packing = true;
    first.first_row = lp_mul(k, place.chunk, c->chunk_rows ? c->chunk_rows : c->chunk * c->tile), first.stage_row = first.number = lp_int(k, 0);
    lp_cursor inside = *at_cursor;
    if (c->n_chunks > 1) {
      lp_stmt *s = lp_append(k, at_cursor, LS_IF);
      s->guard = place.packed;
      inside.tail = &s->body;
    }
    tile(c, &inside, &first, c->tile);
    while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
  }
  chunk_tiles(c, at_cursor, place, tile_panels);
}

/* One block of the sum: what is copied, then all tiles of the task. */
static void block(contraction *c, lp_cursor *at_cursor, tile_place place, lp_ref group) {
  if (c->pack && !c->keep && !c->once) pack_group(c, at_cursor, place, group);
  tile_place all = place;
  all.packed = 0;
  if (c->copy) {
    tile_place from = all;
    lp_cursor body = *at_cursor;
    if (c->copy_rows) body = sum_loops(c, body, &from, from.at, &from.flat);
    chunk_tiles(c, &body, from, copy_tile);
    while (*at_cursor->tail) at_cursor->tail = &(*at_cursor->tail)->next;
  }
  if (c->inside) chunk_tiles(c, at_cursor, all, tile_panels);
  else group_panels(c, at_cursor, place, group, panel_tiles);
}

/* A costly epilogue: one loop over the chunk's rows of a panel. */
static void epilogue(contraction *c, lp_cursor *at_cursor, tile_place place) {
  lp_kernel *k = c->lx->k;
  int64_t rows = stage_rows(c);
  int var = lp_var_add(k, "r", rows), lane_var = lp_var_add(k, "l", place.width);
  lp_cursor inside, lanes;
  lp_for(k, at_cursor, var, 0, rows, 0, &inside);
  lp_ref r = lp_var(k, var), lane = lp_var(k, lane_var);
  if (c->n_outer_all > 1) {
    con_unflatten(c, c->outer, c->n_outer, lp_add(k, lp_mul(k, place.chunk, c->chunk), lp_div(k, r, c->n_rows_all)), place.at);
    con_unflatten(c, c->rows, c->n_rows, lp_mod(k, r, c->n_rows_all), place.at);
  } else {
    lp_ref row = lp_add(k, lp_mul(k, place.chunk, rows), r);
    if (c->n_chunks * rows > c->n_rows_all) {
      lp_stmt *s = lp_append(k, &inside, LS_IF);
      s->guard = lp_op(k, IR_lt, TT_BOOL, row, lp_int(k, c->n_rows_all), 0);
      inside.tail = &s->body;
    }
    con_unflatten(c, c->rows, c->n_rows, row, place.at);
  }
  lp_for(k, &inside, lane_var, 0, place.width, (int)c->lanes, &lanes);
  place.at[c->vec] = lp_add(k, lp_mul(k, place.panel, c->lanes), lane);
  store_results(c, &lanes, place.at, lp_load(k, c->stage_buffer, stage_index(c, &place, r, lane), 0, 0));
}

/* Rows of the vectorized operand, and the axes at one of them and number m of the few rows of the other. */
static int64_t dot_rows(const contraction *c) {
  int64_t n = 1;
  for (int i = 0; i < c->n_batch; i++) n *= c->axes[c->batch[i]].extent;
  return n;
}
static void dot_place(contraction *c, lp_ref row, int64_t m, lp_ref *at) {
  con_unflatten(c, c->batch, c->n_batch, row, at);
  con_unflatten(c, c->rows, c->n_rows, lp_int(c->lx->k, m), at);
}

/* Every result a dot product along the innermost summed axis. The rows of the vectorized operand are cut into c->places equal parts, and a task has `per_task` rows of each: it reads
 * them from all the parts at once, and the next task goes on where it ends. Memory brings several streams sooner than one (measured on Zen 3: 1.3 times on one thread, 1.1 on two),
 * and each number of the other operand is loaded once for all of them. A costly epilogue goes over the task's results in vectors. */
void con_dot_products(contraction *c) {
  lp_kernel *k = c->lx->k;
  lp_ref at[MAX_AXES], value[DOT_PLACES], inside_of[DOT_PLACES];
  lp_cursor body = c->body, inside;
  int64_t all = dot_rows(c), part = (all + c->places - 1) / c->places;
  bool even = part % c->per_task == 0, whole = even && all % c->places == 0, staged = c->stage_buffer >= 0;
  lp_ref first = lp_mul(k, c->task, c->per_task);
  for (int i = 0; i < c->n_axes; i++) at[i] = lp_int(k, 0);
  int var = lp_var_add(k, "i", c->per_task), acc = lp_local_add(k, "acc", c->acc_type, (int)(c->places * c->n_rows_all));
  lp_for(k, &body, var, 0, c->per_task, 0, &inside);
  if (!even) {
    lp_stmt *s = lp_append(k, &inside, LS_IF);
    s->guard = lp_op(k, IR_lt, TT_BOOL, lp_add(k, first, lp_var(k, var)), lp_int(k, part), 0);
    inside.tail = &s->body;
  }
  for (int64_t j = 0; j < c->places; j++) {
    value[j] = lp_add(k, lp_int(k, j * part), lp_add(k, first, lp_var(k, var)));
    inside_of[j] = whole ? 0 : lp_op(k, IR_lt, TT_BOOL, value[j], lp_int(k, all), 0);
    if (!whole) value[j] = lp_op(k, IR_min, TT_I64, value[j], lp_int(k, all - 1), 0);
  }
  lp_stmt *s = lp_append(k, &inside, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, c->acc_type, 0);
  lp_cursor sum = inside;
  for (int i = 0; i < c->n_sum; i++) {
    int64_t extent = c->axes[c->sum[i]].extent;
    int kv = lp_var_add(k, "k", extent);
    lp_for(k, &sum, kv, 0, extent, i == c->n_sum - 1 ? (int)c->lanes : 0, &sum);
    at[c->sum[i]] = lp_var(k, kv);
  }
  for (int64_t j = 0; j < c->places; j++)
    for (int64_t m = 0; m < c->n_rows_all; m++) {
      dot_place(c, value[j], m, at);
      s = lp_append(k, &sum, LS_REDUCE);
      s->local = acc, s->index = lp_int(k, j * c->n_rows_all + m), s->op = IR_add;
      s->value = lp_op(k, IR_mul, c->acc_type, as_acc(c, con_operand(c, c->lx, A, at)), as_acc(c, con_operand(c, c->lx, B, at)), 0);
    }
  while (*inside.tail) inside.tail = &(*inside.tail)->next;
  for (int64_t j = 0; j < c->places; j++) {
    lp_cursor to = inside;
    if (inside_of[j]) {
      s = lp_append(k, &inside, LS_IF);
      s->guard = inside_of[j];
      to.tail = &s->body;
    }
    for (int64_t m = 0; m < c->n_rows_all; m++) {
      int64_t number = j * c->n_rows_all + m;
      dot_place(c, value[j], m, at);
      if (!staged) store_results(c, &to, at, lp_get(k, acc, lp_int(k, number)));
      else {
        s = lp_append(k, &to, LS_STORE);
        s->buffer = c->stage_buffer, s->index = lp_add(k, lp_var(k, var), lp_int(k, number * c->per_task)), s->value = lp_get(k, acc, lp_int(k, number));
      }
    }
    while (*inside.tail) inside.tail = &(*inside.tail)->next;
  }
  for (int64_t m = 0; staged && m < c->n_rows_all; m++) {
    while (*body.tail) body.tail = &(*body.tail)->next;
    int place = lp_var_add(k, "p", c->places), lane = lp_var_add(k, "l", c->per_task);
    lp_for(k, &body, place, 0, c->places, 0, &inside);
    lp_for(k, &inside, lane, 0, c->per_task, (int)c->lanes, &inside);
    dot_place(c, lp_add(k, lp_mul(k, lp_var(k, place), part), lp_add(k, first, lp_var(k, lane))), m, at);
    store_results(c, &inside, at, lp_load(k, c->stage_buffer, lp_add(k, lp_var(k, lane), lp_mul(k, lp_add(k, lp_mul(k, lp_var(k, place), c->n_rows_all), lp_int(k, m)), c->per_task)), 0, 0));
  }
}

/* Enough numbers for a task, and of its results whole lines where there are many; a divisor where there is one near. */
static void choose_dots(contraction *c, int64_t steps) {
  enum { LEAST = 16384, LINE = 16 };
  int64_t all = dot_rows(c), part, n = 1, by;
  int axes = 0;
  c->places = all >= 2 * DOT_PLACES ? DOT_PLACES : 1;
  part = (all + c->places - 1) / c->places, by = part >= 4 * LINE ? LINE : 1;
  while (n * c->places * steps < LEAST && n < part) n *= 2;
  n = (n + by - 1) / by * by;
  for (int64_t d = n; d <= 2 * n; d += by)
    if (part % d == 0) { n = d; break; }
  c->per_task = n < part ? n : part;
  c->n_tasks = (part + c->per_task - 1) / c->per_task;
  for (int i = 0; i < c->n_batch; i++) axes += c->axes[c->batch[i]].extent > 1;
  bool staged = con_costly(c->g, c->lx->region) && axes == 1 && all % c->places == 0 && part % c->per_task == 0 && c->per_task > 1;
  c->stage_buffer = staged ? lp_buffer_add(c->lx->k, "stage", c->acc_type, c->places * c->per_task * c->n_rows_all, true, true) : -1;
}

void con_count_tasks(contraction *c) {
  int64_t batches = dot_rows(c);
  if (c->dots) choose_dots(c, sum_extent(c, 0));
  else c->n_tasks = batches * c->n_chunks * c->n_groups;
}

void con_register_tiles(contraction *c) {
  lp_kernel *k = c->lx->k;
  int64_t inner = sum_extent(c, c->cut), outermost = inner ? sum_extent(c, 0) / inner : 0;
  const ir_node *row = ir_at(c->g, c->row);
  if (c->pack) c->panel_buffer = lp_buffer_add(k, "panel", ir_at(c->g, row->args[c->vector_op])->dtype, (c->once ? c->block : c->group * (c->keep ? outermost : c->block)) * inner * c->lanes, true, true);
  if (c->copy) c->rows_buffer = lp_buffer_add(k, "rows", ir_at(c->g, row->args[c->scalar_op])->dtype, stage_rows(c) * (c->block + ROW_PAD), true, true);
  if (c->slow || c->n_blocks > 1) c->stage_buffer = lp_buffer_add(k, "stage", c->acc_type, stage_rows(c) * c->group * c->lanes, true, true);

  /* Kept panels serve the chunks that follow in the same call; else the panels follow one another over rows that stay in the cache. */
  lp_ref task = c->task, batch = lp_div(k, task, c->n_groups * c->n_chunks), group;
  tile_place place = {.block_size = outermost};
  place.block_from = lp_int(k, 0), place.first_block = place.last_block = true;
  for (int i = 0; i < c->n_axes; i++) place.at[i] = lp_int(k, 0);
  con_unflatten(c, c->batch, c->n_batch, batch, place.at);
  if (c->keep) place.chunk = lp_mod(k, task, c->n_chunks), group = lp_mod(k, lp_div(k, task, c->n_chunks), c->n_groups);
  else place.chunk = lp_mod(k, lp_div(k, task, c->n_groups), c->n_chunks), group = lp_mod(k, task, c->n_groups);
  lp_cursor body = c->body;
  lp_ref packs = c->n_chunks == 1 ? lp_const(k, TT_BOOL, 1)
                                  : lp_op(k, IR_or, TT_BOOL, lp_op(k, IR_eq, TT_BOOL, lp_var(k, 0), lp_begin(k), 0), lp_op(k, IR_eq, TT_BOOL, place.chunk, lp_int(k, 0), 0), 0);
  if (c->pack_first) place.packed = packs;
  else if (c->pack && c->keep) {
    lp_cursor inside = body;
    if (c->n_chunks > 1) {
      lp_stmt *s = lp_append(k, &body, LS_IF);
      s->guard = packs;
      inside.tail = &s->body;
    }
    int64_t n_blocks = c->n_blocks;
    c->n_blocks = 1;                                           /* all steps of the sum at once */
    pack_group(c, &inside, place, group);
    c->n_blocks = n_blocks;
    while (*body.tail) body.tail = &(*body.tail)->next;
  }
  int64_t before = c->n_blocks - 1;                            /* the last block has the epilogue */
  place.last_block = before == 0;
  if (before) {
    lp_cursor loop = body;
    place.block_size = c->block, place.first_block = before == 1;
    if (before > 1) {
      int zero = lp_var_add(k, "z", c->group * stage_rows(c) * c->lanes), var = lp_var_add(k, "b", before);
      lp_for(k, &body, zero, 0, c->group * stage_rows(c) * c->lanes, (int)c->lanes, &loop);
      lp_stmt *s = lp_append(k, &loop, LS_STORE);
      s->buffer = c->stage_buffer, s->index = lp_var(k, zero), s->value = lp_const(k, c->acc_type, 0);
      lp_for(k, &body, var, 0, before, 0, &loop);
      place.block_from = lp_mul(k, lp_var(k, var), c->block);
    }
    block(c, &loop, place, group);
    while (*body.tail) body.tail = &(*body.tail)->next;
  }
  if (before) {
    place.block_from = lp_int(k, before * c->block), place.block_size = outermost - before * c->block;
    place.first_block = false, place.last_block = true;
  }
  block(c, &body, place, group);
  if (c->slow) group_panels(c, &body, place, group, epilogue);
}
