/* winograd.c: a 3x3 convolution in Winograd's form, block by block, so that nothing transformed ever leaves L2.
 *
 *     task = a block of T tiles of m x m results, of any images
 *       V[q][t][c] = B^T d B                   the pixels under each tile, transformed: q counts the a*a = (m+2)^2 positions; vectors over channels
 *       for each panel of L output channels
 *         M[q][t][l] = sum over c of V[q][t][c] * U[panel][q][c][l]          a*a small products, in register tiles of R tiles x L channels
 *         A^T M A of each tile, epilogue, store
 *
 * The transformed weights U are an operand that stands panel by panel (passes/winograd.c), so each product reads them in one stream. V and M are the
 * scratch of the thread. A transform is additions, with what the rows of B^T and A^T share computed once; it goes over the columns of a tile and then over its
 * rows, each a loop, and what lies between stands where its results will: a tile is more than there are registers, and the code is a sixth of one written out. */
#include "contract.h"

typedef struct {
  lower_ctx *lx;
  lp_kernel *k;
  ir_ref row;
  tt_dtype t;
  int m, a;
  int64_t C, O, H, W, L, tiles_h, tiles_w, total, T, rows;      /* total: tiles of all images; T: of a task; rows: of a register tile */
  int lanes;                                                    /* of the transforms: one machine vector */
  int64_t v_apart, m_apart;                                     /* between two positions of V and M: an odd number of lines, so that a tile's fall into different sets of L1 */
  int v, products, out;                                         /* scratch: V, M, and a tile's results when their epilogue is a loop */
} wino;

/* ---- transforms ---- */

lp_ref con_keep(lp_kernel *k, lp_cursor *at, tt_dtype t, lp_ref value) {
  lp_stmt *s = lp_append(k, at, LS_LOCAL);
  s->local = lp_local_add(k, "x", t, 1), s->value = value;
  return lp_get(k, s->local, 0);
}

typedef struct { lp_kernel *k; lp_cursor *at; tt_dtype t; } place;
static lp_ref add(const place *p, lp_ref a, lp_ref b) { return con_keep(p->k, p->at, p->t, lp_op(p->k, IR_add, p->t, a, b, 0)); }
static lp_ref sub(const place *p, lp_ref a, lp_ref b) { return con_keep(p->k, p->at, p->t, lp_op(p->k, IR_sub, p->t, a, b, 0)); }
static lp_ref mul_add(const place *p, double f, lp_ref a, lp_ref b) { return con_keep(p->k, p->at, p->t, lp_fma(p->k, lp_const(p->k, p->t, f), a, b)); }

void con_winograd_input(lp_kernel *k, lp_cursor *at, tt_dtype t, int tile, const lp_ref *x, lp_ref *y) {
  const place *w = &(place){k, at, t};
  if (tile == 2) {
    y[0] = sub(w, x[0], x[2]), y[1] = add(w, x[1], x[2]), y[2] = sub(w, x[2], x[1]), y[3] = sub(w, x[1], x[3]);
    return;
  }
  lp_ref e = mul_add(w, -4, x[2], x[4]), o = mul_add(w, -4, x[1], x[3]), f = sub(w, x[4], x[2]), p = sub(w, x[3], x[1]);
  y[0] = mul_add(w, 4, x[0], mul_add(w, -5, x[2], x[4]));
  y[1] = add(w, e, o), y[2] = sub(w, e, o);
  y[3] = mul_add(w, 2, p, f), y[4] = mul_add(w, -2, p, f);
  y[5] = mul_add(w, 4, x[1], mul_add(w, -5, x[3], x[5]));
}

/* y = A^T x */
static void output_side(wino *o, lp_cursor *at, const lp_ref *x, lp_ref *y) {
  const place *w = &(place){o->k, at, o->t};
  lp_ref s = add(w, x[1], x[2]), d = sub(w, x[1], x[2]);
  if (o->m == 2) {
    y[0] = add(w, x[0], s), y[1] = sub(w, d, x[3]);
    return;
  }
  lp_ref s2 = add(w, x[3], x[4]), d2 = sub(w, x[3], x[4]);
  y[0] = add(w, add(w, x[0], s), s2), y[1] = mul_add(w, 2, d2, d);
  y[2] = mul_add(w, 4, s2, s), y[3] = add(w, mul_add(w, 8, d2, d), x[5]);
}

/* ---- the three steps ---- */

typedef struct { lp_ref image, y, x; } tile_at;                 /* its first result's */

/* A loop over the block's tiles; those behind the last of all are skipped. */
static lp_cursor each_tile(wino *w, lp_cursor *at, lp_ref *t, tile_at *where) {
  lp_kernel *k = w->k;
  int var = lp_var_add(k, "t", w->T);
  lp_cursor body;
  lp_for(k, at, var, 0, w->T, 0, &body);
  *t = lp_var(k, var);
  lp_ref number = lp_add(k, lp_mul(k, lp_var(k, 0), w->T), *t);
  if (w->total % w->T) {
    lp_stmt *s = lp_append(k, &body, LS_IF);
    s->guard = lp_op(k, IR_lt, TT_BOOL, number, lp_int(k, w->total), 0);
    body.tail = &s->body;
  }
  where->image = lp_div(k, number, w->tiles_h * w->tiles_w);
  where->y = lp_mul(k, lp_mod(k, lp_div(k, number, w->tiles_w), w->tiles_h), w->m);
  where->x = lp_mul(k, lp_mod(k, number, w->tiles_w), w->m);
  return body;
}

static lp_ref side_loop(lp_kernel *k, lp_cursor *at, int64_t n) {
  int var = lp_var_add(k, "i", n);
  lp_for(k, at, var, 0, n, 0, at);
  return lp_var(k, var);
}

/* Where position (i, j) stands of tile t and channel c, both among n. */
static lp_ref standing(wino *w, int64_t apart, lp_ref i, lp_ref j, lp_ref t, int64_t n, lp_ref c) {
  lp_kernel *k = w->k;
  return lp_add(k, lp_mul(k, lp_add(k, lp_mul(k, i, w->a), j), apart), lp_add(k, lp_mul(k, t, n), c));
}

static void transform_input(wino *w, lp_cursor *at) {
  lp_kernel *k = w->k;
  lp_ref t, in[6], out[6];
  tile_at where;
  lp_cursor body = each_tile(w, at, &t, &where);
  int var = lp_var_add(k, "c", w->C);
  lp_for(k, &body, var, 0, w->C, w->lanes, &body);
  lp_ref c = lp_var(k, var);
  for (int rows = 0; rows < 2; rows++) {
    lp_cursor inside = body;
    lp_ref at_side = side_loop(k, &inside, w->a), spot[6];
    for (int i = 0; i < w->a; i++) spot[i] = rows ? standing(w, w->v_apart, at_side, lp_int(k, i), t, w->C, c) : standing(w, w->v_apart, lp_int(k, i), at_side, t, w->C, c);
    for (int i = 0; i < w->a; i++)
      in[i] = con_keep(k, &inside, w->t, rows ? lp_load(k, w->v, spot[i], 0, 0) : lower_pull(w->lx, ir_at(w->lx->g, w->row)->args[0], (lp_ref[]){where.image, lp_int(k, 0), c, lp_add(k, where.y, lp_int(k, i)), lp_add(k, where.x, at_side)}));
    con_winograd_input(k, &inside, w->t, w->m, in, out);
    for (int i = 0; i < w->a; i++) {
      lp_stmt *s = lp_append(k, &inside, LS_STORE);
      s->buffer = w->v, s->index = spot[i], s->value = out[i];
    }
    while (*body.tail) body.tail = &(*body.tail)->next;
  }
}

/* What the next block reads, for the share of one of n register tiles, so that memory works while products are made: about that block's pixels, in order. */
static void ask_for_next(wino *w, lp_cursor *at, lp_ref number, int64_t n) {
  lp_kernel *k = w->k;
  int64_t pixels = w->T * w->m * w->m, each = (pixels + n - 1) / n, line = 64 / (int64_t)tt_dtype_size(w->t), all = w->total / (w->tiles_h * w->tiles_w) * w->H * w->W;
  lp_cursor body = *at;
  int var = lp_var_add(k, "n", each);
  if (each > 1) lp_for(k, &body, var, 0, each, 0, &body);
  lp_ref pixel = lp_add(k, lp_mul(k, lp_add(k, lp_var(k, 0), lp_int(k, 1)), pixels), lp_add(k, lp_mul(k, number, each), each > 1 ? lp_var(k, var) : lp_int(k, 0)));
  pixel = lp_op(k, IR_min, TT_I64, pixel, lp_int(k, all - 1), 0);
  lp_ref image = lp_div(k, pixel, w->H * w->W), y = lp_mod(k, lp_div(k, pixel, w->W), w->H), x = lp_mod(k, pixel, w->W);
  for (int64_t c = 0; c < w->C; c += line) {
    lp_ref e = lower_pull(w->lx, ir_at(w->lx->g, w->row)->args[0], (lp_ref[]){image, lp_int(k, 0), lp_int(k, c), y, x});
    if (k->exprs[e].kind != LX_LOAD) continue;
    lp_stmt *s = lp_append(k, &body, LS_PREFETCH);
    s->op = 2, s->buffer = (int)k->exprs[e].imm, s->index = k->exprs[e].a[0];
  }
  while (*at->tail) at->tail = &(*at->tail)->next;
}

/* n register tiles of `rows` rows, from row number `from` on: M of one panel at position q. first_tile: the first's number among the `tiles` of a panel and position. */
static void product_tiles(wino *w, lp_cursor *at, lp_ref panel, lp_ref q, int64_t from, int64_t n, int64_t rows, int64_t first_tile, int64_t tiles) {
  if (n <= 0 || rows <= 0) return;
  lp_kernel *k = w->k;
  int tile = lp_var_add(k, "r", n), lane = lp_var_add(k, "l", w->L), channel = lp_var_add(k, "k", w->C), acc = lp_local_add(k, "acc", w->t, (int)rows), u = lp_local_add(k, "u", w->t, 1);
  lp_cursor body, inside;
  lp_for(k, at, tile, 0, n, 0, &body);
  lp_ref number = lp_add(k, lp_mul(k, panel, w->a * w->a), q);
  if (k->tasks > 1) ask_for_next(w, &body, lp_add(k, lp_mul(k, number, tiles), lp_add(k, lp_var(k, tile), lp_int(k, first_tile))), (w->O + w->L - 1) / w->L * w->a * w->a * tiles);
  lp_for(k, &body, lane, 0, w->L, (int)w->L, &body);
  lp_ref row = lp_add(k, lp_mul(k, lp_var(k, tile), rows), lp_int(k, from)), l = lp_var(k, lane), c = lp_var(k, channel), at_q[] = {lp_mul(k, q, w->v_apart), lp_mul(k, q, w->m_apart)};
  lp_stmt *s = lp_append(k, &body, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, w->t, 0);
  lp_for(k, &body, channel, 0, w->C, 0, &inside);
  s = lp_append(k, &inside, LS_LOCAL);
  s->local = u, s->value = lower_pull(w->lx, ir_at(w->lx->g, w->row)->args[1], (lp_ref[]){panel, q, c, l});
  for (int64_t i = 0; i < rows; i++) {
    s = lp_append(k, &inside, LS_SET);
    s->local = acc, s->index = lp_int(k, i);
    s->value = lp_fma(k, lp_load(k, w->v, lp_add(k, at_q[0], lp_add(k, lp_mul(k, lp_add(k, row, lp_int(k, i)), w->C), c)), 0, 0), lp_get(k, u, 0), lp_get(k, acc, s->index));
  }
  while (*body.tail) body.tail = &(*body.tail)->next;
  for (int64_t i = 0; i < rows; i++) {
    s = lp_append(k, &body, LS_STORE);
    s->buffer = w->products, s->index = lp_add(k, at_q[1], lp_add(k, lp_mul(k, lp_add(k, row, lp_int(k, i)), w->L), l)), s->value = lp_get(k, acc, lp_int(k, i));
  }
}

/* Results of one panel, `width` of whose channels exist. */
static void transform_output(wino *w, lp_cursor *at, lp_ref panel, int64_t width, bool looped) {
  lp_kernel *k = w->k;
  int a = w->a, m = w->m;
  lp_ref t, in[6], out[6];
  tile_at where;
  lp_cursor body = each_tile(w, at, &t, &where), lanes = body, inside;
  int var = lp_var_add(k, "l", width);
  lp_for(k, &lanes, var, 0, width, w->lanes, &lanes);
  lp_ref l = lp_var(k, var), o = lp_add(k, lp_mul(k, panel, w->L), l);
  for (int rows = 0; rows < 2; rows++) {
    inside = lanes;
    lp_ref at_side = side_loop(k, &inside, rows ? m : a), spot[6];
    for (int i = 0; i < a; i++) spot[i] = rows ? standing(w, w->m_apart, at_side, lp_int(k, i), t, w->L, l) : standing(w, w->m_apart, lp_int(k, i), at_side, t, w->L, l);
    for (int i = 0; i < a; i++) in[i] = con_keep(k, &inside, w->t, lp_load(k, w->products, spot[i], 0, 0));
    output_side(w, &inside, in, out);
    for (int i = 0; i < m; i++)
      if (!rows || looped) {
        lp_stmt *s = lp_append(k, &inside, LS_STORE);
        s->buffer = rows ? w->out : w->products, s->index = rows ? lp_add(k, lp_mul(k, lp_add(k, lp_mul(k, at_side, m), lp_int(k, i)), w->L), l) : spot[i], s->value = out[i];
      } else con_store(w->lx, w->row, &inside, (lp_ref[]){where.image, lp_int(k, 0), o, lp_add(k, where.y, at_side), lp_add(k, where.x, lp_int(k, i))}, out[i]);
    while (*lanes.tail) lanes.tail = &(*lanes.tail)->next;
  }
  while (*body.tail) body.tail = &(*body.tail)->next;
  if (!looped) return;
  int i = lp_var_add(k, "i", m), j = lp_var_add(k, "j", m);
  lp_ref y = lp_add(k, where.y, lp_var(k, i)), x = lp_add(k, where.x, lp_var(k, j));
  lp_for(k, &body, i, 0, m, 0, &body);
  lp_for(k, &body, j, 0, m, 0, &body);
  for (int side = 0; side < 2; side++) {                 /* the last tiles reach over the edge */
    if ((side ? w->W : w->H) % m == 0) continue;
    lp_stmt *s = lp_append(k, &body, LS_IF);
    s->guard = lp_op(k, IR_lt, TT_BOOL, side ? x : y, lp_int(k, side ? w->W : w->H), 0);
    body.tail = &s->body;
    if (side) x = lp_op(k, IR_min, TT_I64, x, lp_int(k, w->W - 1), 0);          /* itself, with its range known */
    else y = lp_op(k, IR_min, TT_I64, y, lp_int(k, w->H - 1), 0);
  }
  var = lp_var_add(k, "l", width);
  lp_for(k, &body, var, 0, width, w->lanes, &inside);
  l = lp_var(k, var), o = lp_add(k, lp_mul(k, panel, w->L), l);
  con_store(w->lx, w->row, &inside, (lp_ref[]){where.image, lp_int(k, 0), o, y, x}, lp_load(k, w->out, lp_add(k, lp_mul(k, lp_add(k, lp_mul(k, lp_var(k, i), m), lp_var(k, j)), w->L), l), 0, 0));
}

/* ---- choosing ---- */

static void choose(wino *w, const cg_cpu *cpu) {
  int64_t bytes = (int64_t)tt_dtype_size(w->t), vectors = (w->L * bytes + cpu->vector_bytes - 1) / cpu->vector_bytes, rows = (cpu->n_registers - 1 - vectors) / vectors;
  w->lanes = (int)(cpu->vector_bytes / bytes);
  w->rows = rows < 1 ? 1 : rows > 14 ? 14 : rows;
  /* V and M have five eighths of L2, the weights stream through the rest; some blocks for every thread of a small team, and no tile fewer than rows. */
  int64_t fit = cpu->l2 * 5 / 8 / (w->a * w->a * (w->C + w->L) * bytes), most = (w->total + 7) / 8;
  int64_t T = fit < 64 ? fit : 64;
  if (T > most) T = most;
  T = T / w->rows * w->rows;
  if (T < w->rows) T = w->rows;
  int64_t blocks = (w->total + T - 1) / T, even = (blocks + 3) / 4 * 4, least = vectors < 8 ? 8 / vectors : 1;      /* least: rows that keep the multiply-adds busy */
  w->T = (w->total + blocks - 1) / blocks;
  if (blocks > 4) w->T = (w->total + even - 1) / even;
  /* Few blocks are to be equally many for each of two or four threads, if need be of tiles with fewer rows. */
  for (int64_t t = w->T; blocks > 1 && blocks < 16 && t <= fit && t <= 2 * w->T; t++)
    if (((w->total + t - 1) / t) % 4 == 0) { w->T = t; break; }
  for (int64_t t = w->T; blocks > 1 && blocks < 16 && ((w->total + w->T - 1) / w->T) % 4 && t >= least; t--)
    if (((w->total + t - 1) / t) % 4 == 0) w->T = t;
}

/* At least n elements that are an odd number of lines. */
static int64_t apart(const wino *w, int64_t n) {
  int64_t line = 64 / (int64_t)tt_dtype_size(w->t);
  return ((n + line - 1) / line | 1) * line;
}

void con_winograd(lower_ctx *lx, ir_ref row) {
  const ir_node *n = ir_at(lx->g, row), *x = ir_at(lx->g, n->args[0]), *u = ir_at(lx->g, n->args[1]);
  lp_kernel *k = lx->k;
  wino w = {.lx = lx, .k = k, .row = row, .t = (tt_dtype)n->dtype, .m = (int)ir_int(n, "tile"), .C = x->dim[2], .O = n->dim[2], .H = n->dim[3], .W = n->dim[4], .L = u->dim[3]};
  w.a = w.m + 2, w.tiles_h = (w.H + w.m - 1) / w.m, w.tiles_w = (w.W + w.m - 1) / w.m, w.total = n->dim[0] * w.tiles_h * w.tiles_w;
  if (w.total == 0 || w.O == 0) return;
  choose(&w, lx->cpu);
  bool looped = con_costly(lx->g, lx->region) || w.H % w.m || w.W % w.m;
  k->tasks = (w.total + w.T - 1) / w.T;
  w.v_apart = apart(&w, w.T * w.C), w.m_apart = apart(&w, w.T * w.L);
  w.v = lp_buffer_add(k, "V", w.t, w.a * w.a * w.v_apart, true, true);
  w.products = lp_buffer_add(k, "M", w.t, w.a * w.a * w.m_apart, true, true);
  if (looped) w.out = lp_buffer_add(k, "out", w.t, w.m * w.m * w.L, true, true);
  lp_cursor body = {&k->body};
  transform_input(&w, &body);
  int64_t full = w.O / w.L, rest = w.O % w.L;
  for (int part = 0; part < 2; part++) {
    if (part ? !rest : !full) continue;
    while (*body.tail) body.tail = &(*body.tail)->next;
    int p = lp_var_add(k, "p", part ? 1 : full), q = lp_var_add(k, "q", w.a * w.a);
    lp_cursor panel, inside;
    lp_for(k, &body, p, 0, part ? 1 : full, 0, &panel);
    lp_ref number = part ? lp_int(k, full) : lp_var(k, p);
    lp_for(k, &panel, q, 0, w.a * w.a, 0, &inside);
    int64_t tiles = (w.T + w.rows - 1) / w.rows, rows = (w.T + tiles - 1) / tiles, low = tiles * rows - w.T, high = tiles - low;     /* balanced: `low` have a row less */
    product_tiles(&w, &inside, number, lp_var(k, q), 0, high, rows, 0, tiles);
    product_tiles(&w, &inside, number, lp_var(k, q), high * rows, low, rows - 1, high, tiles);
    transform_output(&w, &panel, number, part ? rest : w.L, looped);
  }
}
