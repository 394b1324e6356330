/* autocast.c: products of bf16 operands, summed in f32, in place of products of f32 ones; all else stays as it is, and so do the weights (Micikevicius et
 * al. 2017, mixed precision; bf16 needs no scaling of the loss). The meaning is plain: operands are rounded to nearest even where they are made, below the
 * views that products read them through.
 *
 *     %y = matmul(%x, %w)          gives    %a = cast<f32>(cast<bf16>(%x))        with products=bf16
 *                                           %b = cast<f32>(cast<bf16>(%w))
 *                                           %y = matmul(%a, %b)
 *
 * A CPU that multiplies bf16 keeps the operands as such: fuse leaves the cast back to f32 to the product's kernel (codegen/contract_bf16.c). Another one rounds
 * and computes in f32.
 *
 * products=bf16x6: an f32 operand is a sum of three bf16 numbers, x = x1 + x2 + x3 to 24 bits, and a product is six of theirs (those of 2^-24 and less are left
 * out; Henry, Tang & Heinecke 2019). They stand behind one another along the sum, the smallest first. For matmuls alone. */
#include "form.h"

#include <stdlib.h>

typedef struct {
  const ir_graph *in;
  ir_graph *g;
  ir_ref *map, *rounded;               /* of rows of in: what they are in g; the same rounded, 0: not made yet */
} autocast;

/* Row r of in, rounded below the movement that it is. */
static ir_ref round_row(autocast *c, ir_ref r) {
  if (c->rounded[r]) return c->rounded[r];
  const ir_node *n = ir_at(c->in, r);
  double v;
  bool moves = ir_ops[n->op].kind == IR_MOVEMENT && n->op != IR_fold && n->op != IR_concat && n->n_args && ir_at(c->in, n->args[0])->dtype == TT_F32;
  if (n->op == IR_pad && !(ir_is_splat(c->in, n->args[1], &v) && v == 0)) moves = false;
  if (!moves) return c->rounded[r] = ir_cast(c->g, ir_cast(c->g, c->map[r], TT_BF16), TT_F32);
  ir_ref args[2] = {round_row(c, n->args[0]), n->n_args > 1 ? c->map[n->args[1]] : 0};
  return c->rounded[r] = ir_emit(c->g, (ir_op)n->op, args, n->n_args, n->words, n->n_words);
}

/* x as six of its three parts behind one another along axis; which: 0 is the largest part. */
static ir_ref split_row(ir_graph *g, ir_ref x, int axis, const int which[6]) {
  ir_ref part[3], six[6];
  for (int i = 0; i < 3; i++) {
    part[i] = ir_cast(g, x, TT_BF16);
    if (i < 2) x = ir_ew2(g, IR_sub, x, ir_cast(g, part[i], TT_F32));
  }
  for (int i = 0; i < 6; i++) six[i] = part[which[i]];
  return ir_cast(g, ir_concat(g, six, 6, axis), TT_F32);
}

static ir_ref six_products(autocast *c, const ir_node *n) {
  static const int of_a[6] = {2, 1, 0, 1, 0, 0}, of_b[6] = {0, 1, 2, 0, 1, 0};
  int last = n->rank - 1 - (ir_int(n, "split") > 1);
  bool ta = ir_int(n, "ta"), tb = ir_int(n, "tb");
  ir_ref a = split_row(c->g, c->map[n->args[0]], ta ? last - 1 : last, of_a), b = split_row(c->g, c->map[n->args[1]], tb ? last : last - 1, of_b);
  return ir_matmul(c->g, a, b, ta, tb, 1);
}

tt_status pass_autocast(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  autocast c = {in, out, calloc(in->n_nodes, sizeof(ir_ref)), calloc(in->n_nodes, sizeof(ir_ref))};
  bool *live = ir_live(in);
  if (!c.map || !c.rounded || !live) {
    free(c.map), free(c.rounded), free(live);
    return tt_fail(err, TT_NO_MEMORY, "error: no memory for %u rows\n  at pass autocast\n  fix: free memory", in->n_nodes);
  }
  for (ir_ref r = 1; r < in->n_nodes && !out->error.status; r++) {
    const ir_node *n = ir_at(in, r);
    bool product = (n->op == IR_matmul || n->op == IR_conv) && n->dtype == TT_F32;
    if (!live[r]) continue;
    out->at_origin = product ? ir_origin_copy(out, in, n->origin) : 0;
    if (product && options->products == PASS_BF16) {
      ir_ref args[2] = {round_row(&c, n->args[0]), round_row(&c, n->args[1])};
      c.map[r] = ir_emit(out, (ir_op)n->op, args, 2, n->words, n->n_words);
    } else if (product && n->op == IR_matmul && options->products == PASS_BF16X6 && ir_int(n, "split") <= 1) {
      c.map[r] = six_products(&c, n);
    } else {
      c.map[r] = ir_rebuild(in, out, r, c.map);
    }
    out->at_origin = 0;
  }
  ir_finish(in, out, c.map);
  free(c.map), free(c.rounded), free(live);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
