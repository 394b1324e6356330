/* contract_choose.c: the cost model of contractions: which axis fills the vectors, which are rows of the register tile, how large the tile is, what is
 * packed, where a long sum is cut, and what makes a task. It looks at extents, strides and the CPU's registers and caches, never at a thread count. */
#include "contract.h"

/* Sorts axis numbers by falling stride in `which`, then in `then`. */
static void sort_axes(const contraction *c, int *list, int n, int which, int then) {
  for (int i = 1; i < n; i++)
    for (int j = i; j > 0; j--) {
      const axis *p = &c->axes[list[j - 1]], *q = &c->axes[list[j]];
      int64_t dp = con_magnitude(p, which), dq = con_magnitude(q, which);
      if (dp > dq || (dp == dq && con_magnitude(p, then) >= con_magnitude(q, then))) break;
      int t = list[j];
      list[j] = list[j - 1], list[j - 1] = t;
    }
}

static void choose_vector_axis(contraction *c, int64_t machine_lanes) {
  int64_t best = -1;
  c->vec = -1;
  for (int i = 0; i < c->n_axes; i++) {
    const axis *x = &c->axes[i];
    bool in_a = con_depends(x, A), in_b = con_depends(x, B);
    /* An axis of both operands (the channels of a depthwise convolution): the scalar operand is then read as vectors too, where it is contiguous. */
    bool shared = in_a && in_b && x->affine[A] && x->stride[A] == 1;
    if (x->summed || (in_a == in_b && !shared) || x->extent < 2) continue;
    int which = in_b ? B : A, unit = shared ? A : which;
    int64_t fill = x->extent < machine_lanes ? x->extent * 8 / machine_lanes : 8;      /* of 8: how full a vector gets */
    int64_t score = fill * 100 + (x->affine[unit] && x->stride[unit] == 1 ? 300 : 0) + (x->affine[C] && x->stride[C] == 1 ? 200 : 0) +
                    (which == B ? 1 : 0) + (x->extent >= 4 * machine_lanes ? 20 : 0);
    if (score > best) best = score, c->vec = i, c->vector_op = which, c->scalar_op = !which;
  }
}

/* Rows that fit beside nv vectors of accumulators each, with nv for the panel and one for the broadcast. */
static int64_t rows_that_fit(const cg_cpu *cpu, int64_t nv) {
  int64_t rows = (cpu->n_registers - 1 - nv) / nv;
  return rows < 1 ? 1 : rows > 14 ? 14 : rows;
}

/* What a tile of rows x nv vectors costs, in half cycles: its steps, and what surrounds them. A step takes two multiply-adds and two loads a cycle, or what
 * 4 cycles of latency leave; a panel that is read again and outgrows its half of L1 comes from L2 at 16 bytes a cycle. */
static int64_t tile_cost(const contraction *c, int64_t rows, int64_t nv, int64_t steps, bool again) {
  int64_t work = rows * nv, loads = rows + nv, step = work < 8 ? 8 : work, bytes = nv * c->cpu->vector_bytes;
  if (step < loads) step = loads;
  if (again && steps * bytes > c->cpu->l1d / 2 && step < bytes / 8) step = bytes / 8;
  return steps * step + 2 * work + 24;
}

static void choose_tile(contraction *c, int64_t machine_lanes) {
  int64_t extent = c->axes[c->vec].extent, best = INT64_MAX, steps = 1;
  for (int i = 0; i < c->n_sum; i++) steps *= c->axes[c->sum[i]].extent;
  for (int64_t nv = 1; nv <= 8; nv *= 2) {             /* powers of two: LLVM widens other vectors to the next one */
    int64_t rows = rows_that_fit(c->cpu, nv), lanes = nv * machine_lanes;
    if (nv > 1 && lanes / 2 >= extent) break;
    if (c->n_batch && lanes < extent && extent <= 2 * machine_lanes) continue;      /* a packed panel (passes/prepack.c) is one tile wide: its columns go to one place of the result's lines */
    if (rows > c->n_rows_all) rows = c->n_rows_all;
    int64_t tiles = (c->n_rows_all + rows - 1) / rows, rest = 1, cost = 0;
    rows = (c->n_rows_all + tiles - 1) / tiles;                                       /* balanced: `low` tiles have a row less */
    int64_t low = tiles * rows - c->n_rows_all;
    while (rest * machine_lanes < extent % lanes) rest *= 2;
    for (int less = 0; less < 2; less++) {
      int64_t one = extent / lanes * tile_cost(c, rows - less, nv, steps, tiles > 1) + (extent % lanes ? tile_cost(c, rows - less, rest, steps, tiles > 1) : 0);
      cost += (less ? low : tiles - low) * one;
    }
    if (best == INT64_MAX || cost < best - best / 50) best = cost, c->lanes = lanes, c->tile = rows;
  }
}

bool con_costly(const ir_graph *g, uint32_t region) {
  for (ir_ref r = g->kernels[region].first; r && r <= g->kernels[region].last; r++)
    if (ir_at(g, r)->region == region && pass_op_cost((ir_op)ir_at(g, r)->op) >= PASS_COSTLY) return true;
  return false;
}

bool con_planned(contraction *c, const char *name, uint32_t i, uint32_t n, int64_t least, int64_t most, int64_t *value) {
  uint32_t count;
  const int64_t *values = ir_kernel_get(c->g, c->lx->region, name, &count);
  if (!values || c->lx->err->status) return false;
  const char *kernel = c->g->kernels[c->lx->region].name;
  if (count != n)
    return tt_fail(c->lx->err, TT_INVALID, "error: plan entry \"%s\" has %u values instead of %u\n  at kernel %s\n  fix: give it %u, or leave it out", name, count, n, kernel, n), false;
  if (values[i] < least || values[i] > most)
    return tt_fail(c->lx->err, TT_INVALID, "error: plan entry \"%s\": %lld is not in %lld..%lld\n  at kernel %s, value %u\n  fix: choose one within, or leave the entry out", name, (long long)values[i], (long long)least, (long long)most, kernel, i), false;
  return *value = values[i], true;
}

/* One step along axis p is a whole of axis q, of the scalar operand and the result. */
static bool joins(const contraction *c, int p, int q) {
  const axis *x = &c->axes[p], *y = &c->axes[q];
  for (int which = A; which <= C; which++)
    if (which != c->vector_op && !(x->affine[which] && y->affine[which] && x->stride[which] == y->extent * y->stride[which])) return false;
  return true;
}

/* Do the steps of a panel that is read where it stands, `step` bytes apart, fill the sets of L1 that they fall into more than half? */
static bool crowded(const contraction *c, int64_t step, int64_t steps) {
  int64_t bytes = c->lanes * (int64_t)tt_dtype_size(c->acc_type), apart = step & -step, sets = apart > bytes ? c->cpu->l1d / (apart / bytes) : c->cpu->l1d;
  return steps * bytes * 2 > sets;
}

/* What memory brings of the rows arrives while products are made only if it is asked for: the first panel of a chunk would wait for all of it, and the others for nothing.
 * It is still in L2 when its turn comes if all panels fit beside two chunks. What lies in L3 comes soon enough unasked. */
static int64_t rows_ahead(const contraction *c, int64_t steps) {
  int64_t bytes = (int64_t)tt_dtype_size(c->acc_type), panels = c->keep ? c->group : c->group * c->n_groups;
  if (c->n_chunks < 2 || c->copy || c->n_batch || !c->n_sum || c->n_rows + c->n_outer == 0) return 0;
  const axis *step = &c->axes[c->sum[c->n_sum - 1]], *row = &c->axes[c->n_outer_all > 1 ? c->outer[c->n_outer - 1] : c->rows[c->n_rows - 1]];
  if (!step->affine[c->scalar_op] || step->stride[c->scalar_op] != 1 || !row->affine[c->scalar_op] || row->stride[c->scalar_op] < step->extent) return 0;
  int64_t n = row->stride[c->scalar_op] * (c->n_outer_all > 1 ? c->chunk : c->chunk_rows ? c->chunk_rows : c->chunk * c->tile);
  return c->n_chunks * n * bytes > c->cpu->l3 / 8 && c->n_chunks * n * bytes > c->cpu->l2 && (panels * c->lanes * steps + 2 * n) * bytes <= c->cpu->l2 ? n : 0;
}

/* Elements of the scalar operand that lie between two steps of the sum and are rows: channels of an image whose pixels are summed. */
static int64_t rows_between(const contraction *c) {
  int64_t n = 1;
  for (int i = 0; i < c->n_axes; i++) {
    const axis *x = &c->axes[i];
    bool closer = !x->summed && con_depends(x, c->scalar_op);
    for (int j = 0; closer && j < c->n_sum; j++) closer = c->axes[c->sum[j]].extent == 1 || con_magnitude(x, c->scalar_op) < con_magnitude(&c->axes[c->sum[j]], c->scalar_op);
    if (closer) n *= x->extent;
  }
  return n;
}

bool con_choose(contraction *c) {
  int64_t machine_lanes = c->cpu->vector_bytes / (int64_t)tt_dtype_size(c->acc_type);
  if (machine_lanes < 2) machine_lanes = 2;
  choose_vector_axis(c, machine_lanes);
  for (int i = 0; i < c->n_axes; i++)
    if (c->axes[i].summed && (c->axes[i].extent != 1 || !c->n_sum)) c->sum[c->n_sum++] = i;
  if (c->n_sum > 1 && c->axes[c->sum[0]].extent == 1) c->sum[0] = c->sum[--c->n_sum];
  if (c->vec < 0) {                                    /* no vector axis: every other axis is a batch */
    c->vector_op = B, c->scalar_op = A;
    for (int i = 0; i < c->n_axes; i++)
      if (!c->axes[i].summed) c->batch[c->n_batch++] = i;
  } else {
    for (int i = 0; i < c->n_axes; i++) {
      const axis *x = &c->axes[i];
      if (x->summed || i == c->vec) continue;
      if (x->extent == 1) continue;                    /* its index is 0 */
      if (con_depends(x, c->vector_op)) c->batch[c->n_batch++] = i;
      else c->outer[c->n_outer++] = i;
    }
  }
  sort_axes(c, c->sum, c->n_sum, c->scalar_op, c->vector_op);
  sort_axes(c, c->outer, c->n_outer, c->scalar_op, C);
  /* The innermost axis makes the rows, with those around it that go on where it ends (pixels under a 1x1 kernel), when it is long enough; else all of them together. */
  int first = c->n_outer;
  int64_t fit = rows_that_fit(c->cpu, 2), length = 1;
  if (c->n_outer) {
    length = c->axes[c->outer[--first]].extent;
    while (first && joins(c, c->outer[first - 1], c->outer[first])) length *= c->axes[c->outer[--first]].extent;
    if (length < (fit < 6 ? fit : 6)) first = 0;
  }
  c->n_rows_all = c->n_outer_all = 1;
  for (int i = first; i < c->n_outer; i++) c->rows[c->n_rows++] = c->outer[i], c->n_rows_all *= c->axes[c->outer[i]].extent;
  c->n_outer = first;
  for (int i = 0; i < c->n_outer; i++) c->n_outer_all *= c->axes[c->outer[i]].extent;
  int64_t given, outermost = c->n_sum ? c->axes[c->sum[0]].extent : 1;
  c->cut = 1, c->block = outermost, c->n_blocks = c->group = c->n_groups = 1;
  if (c->vec < 0) {
    c->lanes = 4 * machine_lanes, c->tile = 1, c->chunk = c->n_chunks = 1;
    return !c->lx->err->status;
  }
  choose_tile(c, machine_lanes);
  if (con_planned(c, "tile", 0, 2, 1, 64, &given)) c->tile = given < c->n_rows_all ? given : c->n_rows_all;
  if (con_planned(c, "tile", 1, 2, 2, 256, &given)) c->lanes = given;
  int64_t whole = (c->n_rows_all + c->tile - 1) / c->tile;
  c->tile = (c->n_rows_all + whole - 1) / whole;         /* balanced: tiles differ by a row at most */

  const axis *v = &c->axes[c->vec];
  int64_t sum_all = 1, rows = c->n_rows_all * c->n_outer_all, bytes = (int64_t)tt_dtype_size(c->acc_type);
  for (int i = 0; i < c->n_sum; i++) sum_all *= c->axes[c->sum[i]].extent;
  int64_t inner = sum_all ? sum_all / outermost : 1, panels = (v->extent + c->lanes - 1) / c->lanes;
  bool shared = con_depends(v, c->scalar_op), unit = v->affine[c->vector_op] && v->stride[c->vector_op] == 1;
  /* A short sum with several results is bound by what the epilogue reads and writes: go along its rows, all panels staying in L2 meanwhile. */
  c->slow = con_costly(c->g, c->lx->region);
  bool can_be_inside = unit && !c->slow && v->extent > c->lanes;
  c->inside = can_be_inside && lower_n_results(c->lx) > 1 && sum_all <= 256 && sum_all * v->extent * bytes <= c->cpu->l2;
  if (con_planned(c, "blocks", 0, 1, 1, sum_all < 1 ? 1 : sum_all, &given) && given > 1) c->inside = false;
  if (con_planned(c, "inside", 0, 1, 0, can_be_inside, &given)) c->inside = given;
  /* Copying a panel costs two cycles a step, or two stores in the first tile, which some tens of rows, or the second tile, pay back when the steps through the
   * operand are long: they miss the TLB, and multiples of a power of two fall into the same sets of L1. */
  int64_t step = c->n_sum ? con_magnitude(&c->axes[c->sum[c->n_sum - 1]], c->vector_op) * bytes : 0;
  c->pack = !unit || ((rows >= 32 || (c->n_outer_all == 1 && !c->inside && rows > c->tile)) && sum_all >= 64 && (sum_all > 1024 || step >= 1024));
  if (unit && rows >= 32 && sum_all >= 64 && crowded(c, step, sum_all)) c->pack = true;
  if (con_planned(c, "pack", 0, 1, !unit, 1, &given)) c->pack = given;
  bool plain = c->pack && c->n_sum == 1 && c->n_outer_all == 1 && !shared;
  /* The sum is cut where a panel's block outgrows its share of L2, which feeds the tile as fast as L1 does; every cut costs a pass over partial sums. */
  int64_t most = c->cpu->l2 / (plain ? 4 : 8) / (inner * c->lanes * bytes);
  /* Where the rows are copied too, all that a tile reads comes from near: its panel stays in L1 for all tiles of the block, the rows in L2. */
  bool copied = plain && con_magnitude(&c->axes[c->sum[0]], c->scalar_op) != 1;
  int64_t near = c->cpu->l1d / 2 / (c->lanes * bytes);
  if (copied && most > near) most = outermost <= near * 3 / 2 ? outermost : near;
  /* Few rows are all read for one panel after the other: what is read of them in a block stays in L2. */
  int64_t few = c->cpu->l2 * 7 / 8 / (rows * bytes), alone = few < most / 2 ? few : most / 2;
  bool together = plain && unit && alone >= 256;
  if (together) most = alone;
  if (most < 16) most = 16;
  /* A weight's gradient reads as many elements of its other operand, `between` in a step, of which a tile wants a few of each line: L2 would not keep
   * up. So a block is some lines of pixels, and what all tiles read of both operands stays in L1. */
  int64_t between = rows_between(c);
  if (c->pack && between > 1 && c->n_sum > 1 && !c->inside) {
    enum { STEPS = 64 };                                 /* of a tile, which pay for adding to its partial sums */
    c->cut = c->n_sum > 2 ? c->n_sum - 1 : 1;
    inner = 1;
    for (int i = c->cut; i < c->n_sum; i++) inner *= c->axes[c->sum[i]].extent;
    outermost = inner ? sum_all / inner : 0;
    most = c->cpu->l1d * 5 / 8 / (inner * (c->lanes + between) * bytes);
    if (most * inner < STEPS) most = (STEPS + inner - 1) / inner;
    c->block = outermost;
  }
  if (c->pack && outermost > most && !c->inside) c->n_blocks = (outermost + most - 1) / most;
  /* Few rows times what stands in memory. The fewest read it along its own rows, some at a time, as the hardware expects it; partial sums stay in L1. */
  int64_t parts = 1;
  for (int i = 0; i < c->n_batch; i++) parts *= c->axes[c->batch[i]].extent;
  c->ahead = unit && !c->pack && !c->inside && rows <= 3 * c->tile && parts * sum_all * v->extent * bytes > c->cpu->l2;
  c->along = c->ahead && c->n_sum == 1 && c->n_outer_all == 1 && !shared && rows <= c->tile && outermost >= 4 * CON_SHORT;
  if (c->along) {
    c->ahead = false, c->n_blocks = outermost / CON_SHORT;
    if (c->lanes > 4 * machine_lanes && !con_planned(c, "tile", 1, 2, 2, 256, &given)) c->lanes = 4 * machine_lanes, panels = (v->extent + c->lanes - 1) / c->lanes;
  }
  if (con_planned(c, "blocks", 0, 1, 1, c->inside || outermost < 1 ? 1 : outermost, &given)) c->n_blocks = given;
  c->block = (outermost + c->n_blocks - 1) / c->n_blocks;
  if (c->n_blocks > 1 && c->block > 8) c->block = (c->block + 7) / 8 * 8;
  c->n_blocks = c->block ? (outermost + c->block - 1) / c->block : 1;
  /* The results are few beside the sum: an update as their epilogue is a loop over the partial sums, which compiles much sooner than unrolled. */
  if (c->n_blocks > 1 && between > 1 && lower_n_results(c->lx) > 1) c->slow = true;
  c->copy = copied;
  if (con_planned(c, "copy", 0, 1, 0, plain, &given)) c->copy = given;
  c->copy_rows = c->copy && con_magnitude(&c->axes[c->sum[0]], c->scalar_op) != 1;
  /* Panels of a group share what is read, or copied, of the rows. */
  int64_t kept = sum_all ? 4 * c->cpu->l2 / (sum_all * c->lanes * bytes) : 1;
  if (plain) c->group = c->copy && kept > 16 ? 16 : kept > 4 && !c->copy ? 4 : kept;
  /* So do those of an image's pixels, which would be read again from memory for every panel: as many as may be kept packed. */
  bool pixels = c->pack && !plain && !c->inside && c->n_blocks == 1 && rows >= 512;
  if (pixels) c->group = kept;
  if (c->along) c->group = (parts > 1 || v->extent > 8192 ? 4096 : v->extent / 2) / c->lanes;
  if (c->group < 1) c->group = 1;
  if (con_planned(c, "group", 0, 1, 1, plain || pixels || c->along ? 4096 : 1, &given)) c->group = given;
  if (c->group > panels) c->group = panels;
  if (c->inside) c->group = panels;
  c->n_groups = (panels + c->group - 1) / c->group;
  c->group = (panels + c->n_groups - 1) / c->n_groups;
  c->n_groups = (panels + c->group - 1) / c->group;
  c->keep = c->pack && (c->inside || c->group * sum_all * c->lanes * bytes <= 4 * c->cpu->l2);

  /* A chunk is at least enough rows to pay for packing, whose steps may each miss the caches, and enough work to be worth a task. */
  int64_t enough = c->keep ? 48 : c->pack ? 256 : 64, work = 2 * sum_all * c->lanes * c->group, tiles = (c->n_rows_all + c->tile - 1) / c->tile;
  if (c->inside) enough = 2 * c->tile;
  int64_t most_rows = shared ? c->cpu->l2 / 8 / (v->extent * bytes) : rows;         /* the next panel reads the lines beside */
  if (together || c->along) enough = rows;
  while (enough * work < 1000000 && enough < rows && 2 * enough <= most_rows && !c->inside) enough *= 2;
  if (c->n_outer_all > 1) {
    c->chunk = (enough + c->n_rows_all - 1) / c->n_rows_all;
    if (con_planned(c, "chunk", 0, 1, 1, INT32_MAX, &given)) c->chunk = given < c->n_outer_all ? given : c->n_outer_all;
    c->chunk = con_nearest_divisor(c->n_outer_all, c->chunk);
    c->n_chunks = c->n_outer_all / c->chunk;
  } else {
    c->chunk = (enough + c->tile - 1) / c->tile;
    if (con_planned(c, "chunk", 0, 1, 1, INT32_MAX, &given)) c->chunk = given;
    if (c->chunk >= tiles) c->chunk = tiles;
    c->n_chunks = (tiles + c->chunk - 1) / c->chunk;
    /* Chunks of equally many rows, when there are about as many. */
    for (int64_t n = c->n_chunks, d = 0; d <= n / 3 && !c->chunk_rows; d++)
      for (int64_t m = n - d; m <= n + d && !c->chunk_rows; m += d ? 2 * d : 1)
        if (c->n_rows_all % m == 0 && (m == 1 || c->n_rows_all / m >= 5 * c->tile)) c->n_chunks = m, c->chunk_rows = c->n_rows_all / m;
    c->chunk = c->chunk_rows ? (c->chunk_rows + c->tile - 1) / c->tile : (tiles + c->n_chunks - 1) / c->n_chunks;
    if (!c->chunk_rows) c->n_chunks = (tiles + c->chunk - 1) / c->chunk;
    else c->tile = (c->chunk_rows + c->chunk - 1) / c->chunk;
  }
  c->once = c->n_chunks == 1 && c->pack;
  c->pack_first = (c->keep || c->once) && !c->inside && unit && c->n_outer_all == 1 && (c->chunk_rows || c->n_rows_all % c->tile == 0 || c->n_rows_all / c->tile % c->chunk);
  c->once = c->once && c->pack_first;
  c->rows_ahead = rows_ahead(c, sum_all);
  c->next = c->pack_first && plain && c->chunk >= 4 && panels > 1;
  return !c->lx->err->status;
}
