/* workloads.c: the workloads by name, as ../shared/peers/workloads.py has them: KIND.WHAT.SIZES. A row of the table says how the sizes are
 * written, how many operations a direct method needs, how often the tensor must cross memory, who else can run it, and how it is traced.
 *
 *     op.matmul.64x256x4096    train.cnn.b64    infer.resnet20.b1    op.conv.64_64_32_64_3_1_1
 *
 * Rows without peers measure what those workloads leave out: the two gradients of a convolution one by one, rows of training, many small
 * kernels, the smallest training step, the tokens of a text (decode.gpt2.b1_512: behind 512 others). */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../frontend/models/models.h"

/* -- Operations. The formulas and their order are those of workloads.py ------------------------------------------------------- */

#define S(i) ((double)w->size[i])

typedef struct { double forward, first; } macs;           /* multiply-adds; first: of the first layer, whose input gradient nobody needs */

static double conv_macs(const bench_workload *w, int c, int k, int r, int h) { return S(0) * h * h * c * k * r * r; }
static double linear_macs(const bench_workload *w, int in, int out) { return S(0) * in * out; }

static macs mlp_macs(const bench_workload *w) { return (macs){linear_macs(w, 784, 512) + linear_macs(w, 512, 512) + linear_macs(w, 512, 10), linear_macs(w, 784, 512)}; }
static macs tiny_macs(const bench_workload *w) { return (macs){linear_macs(w, 8, 16) + linear_macs(w, 16, 4), linear_macs(w, 8, 16)}; }
static macs cnn_macs(const bench_workload *w) {
  double first = conv_macs(w, 3, 32, 3, 32);
  return (macs){first + conv_macs(w, 32, 64, 3, 16) + linear_macs(w, 4096, 256) + linear_macs(w, 256, 10), first};
}
static macs resnet20_macs(const bench_workload *w) {
  macs m = {0, conv_macs(w, 3, 16, 3, 32)};
  m.forward = m.first;
  for (int stage = 0, c = 16, h = 32; stage < 3; stage++)
    for (int block = 0; block < 3; block++) {
      int k = 16 << stage;
      if (block == 0 && stage) h /= 2, m.forward += conv_macs(w, c, k, 1, h);
      m.forward += conv_macs(w, c, k, 3, h) + conv_macs(w, k, k, 3, h);
      c = k;
    }
  m.forward += linear_macs(w, 64, 10);
  return m;
}

#define MODEL_FLOPS(model)                                                                                         \
  static double infer_##model(const bench_workload *w) { return 2 * model##_macs(w).forward; }                   \
  static double train_##model(const bench_workload *w) { return 2 * (3 * model##_macs(w).forward - model##_macs(w).first); }
MODEL_FLOPS(mlp)
MODEL_FLOPS(cnn)
MODEL_FLOPS(resnet20)
static double train_blocks(const bench_workload *w) { return 2 * S(0) * 256 * (3 * (S(1) * 2 * 256 + 10) - 256); }
static double train_tiny(const bench_workload *w) { return 2 * (3 * tiny_macs(w).forward - tiny_macs(w).first); }

enum { VIT_L = 6, VIT_C = 256, GPT_L = 6, GPT_C = 384, GPT_T = 256, GPT_V = 65, GPT2_L = 12, GPT2_C = 768, GPT2_V = 50257 };
static double vit(const bench_workload *w, bool training) {
  double b = S(0), t = 65, c = VIT_C, attention = 2 * b * t * t * c, block = b * t * c * 12 * c + attention;
  double last = b * t * c * 2 * c + b * c * 10 * c + 2 * b * t * c;            /* of the last block, only the class token is used */
  double first = b * 64 * 48 * c, forward = first + (VIT_L - 1) * block + last + b * c * 128 + b * 128 * 10;
  return training ? 2 * (3 * forward - first) + (VIT_L - 1) * attention : 2 * forward;
}
static double gpt(const bench_workload *w, bool training) {
  double b = S(0), t = GPT_T, c = GPT_C, attention = b * t * (t + 1) * c, forward = GPT_L * (b * t * c * 12 * c + attention) + b * t * c * GPT_V;
  return training ? 6 * forward + GPT_L * attention : 2 * forward;
}
static double infer_vit(const bench_workload *w) { return vit(w, false); }
static double train_vit(const bench_workload *w) { return vit(w, true); }
static double infer_gpt(const bench_workload *w) { return gpt(w, false); }
static double train_gpt(const bench_workload *w) { return gpt(w, true); }
static double train_charlstm(const bench_workload *w) { return 6 * S(0) * 128 * (1024 * (128 + 3 * 256) + 256 * GPT_V); }

/* What a token reads of the weights: the blocks, the last norm and the head, which is the embedding. */
static double decode_bytes(double layers, double c, double vocabulary) { return 4 * (layers * (12 * c * c + 13 * c) + vocabulary * c + 2 * c); }

static int64_t groups_of(const bench_workload *w) { return w->n > 6 ? w->size[6] : 1; }
static int64_t conv_out(const bench_workload *w) { return (w->size[2] + 2 * (w->size[4] / 2) - w->size[4]) / w->size[5] + 1; }
static double matmul(const bench_workload *w) { return 2 * S(0) * S(1) * S(2); }
static double bmm(const bench_workload *w) { return 2 * S(0) * S(1) * S(2) * S(3); }
static double conv(const bench_workload *w) {
  double out = (double)conv_out(w);
  return 2 * S(0) * out * out * (double)(w->size[1] / groups_of(w)) * S(3) * S(4) * S(4);
}
static double conv_bwd(const bench_workload *w) { return 3 * conv(w); }
static double attention_flops(const bench_workload *w) { return 4 * S(0) * S(1) * S(2) * S(2) * S(3) / (w->causal ? 2 : 1); }
static double attention_bwd(const bench_workload *w) { return 3.5 * attention_flops(w); }

/* -- Traces. Inputs are called as below; image tensors are channels-last, [N,H,W,C], weights OIHW as a model keeps them ---------- */

static tt_val input(tt_trace *t, const char *name, tt_shape s) { return tt_input(t, name, TT_F32, s); }
static tt_val rows_input(tt_trace *t, const char *name, const bench_workload *w) { return input(t, name, TT_SHAPE(w->size[0], w->size[1])); }

static void product(tt_trace *t, const bench_workload *w, bool ta, bool tb) {
  int64_t m = w->size[0], n = w->size[1], k = w->size[2];
  tt_val a = input(t, "a", ta ? TT_SHAPE(k, m) : TT_SHAPE(m, k)), b = input(t, "b", tb ? TT_SHAPE(n, k) : TT_SHAPE(k, n));
  tt_output(t, "c", tt_matmul(ta ? tt_transpose(a, 0, 1) : a, tb ? tt_transpose(b, 0, 1) : b));
}
static void trace_matmul(tt_trace *t, const bench_workload *w) { product(t, w, false, false); }
static void trace_matmul_nt(tt_trace *t, const bench_workload *w) { product(t, w, false, true); }
static void trace_matmul_tn(tt_trace *t, const bench_workload *w) { product(t, w, true, false); }
static void trace_bmm(tt_trace *t, const bench_workload *w) {
  tt_val a = input(t, "a", TT_SHAPE(w->size[0], w->size[1], w->size[3])), b = input(t, "b", TT_SHAPE(w->size[0], w->size[3], w->size[2]));
  tt_output(t, "c", tt_matmul(a, b));
}

/* The convolution and its gradients: which of the results y, dx, dw are wanted. */
static void convolution(tt_trace *t, const bench_workload *w, bool y, bool dx, bool dw) {
  int64_t n = w->size[0], c = w->size[1], h = w->size[2], k = w->size[3], r = w->size[4], groups = groups_of(w), out = conv_out(w);
  tt_val x = tt_permute(input(t, "x", TT_SHAPE(n, h, h, c)), TT_AXES(0, 3, 1, 2)), weight = input(t, "w", TT_SHAPE(k, c / groups, r, r));
  tt_val result = tt_f_conv(x, weight, (tt_val){0}, .stride = w->size[5], .padding = r / 2, .groups = groups);
  if (y) tt_output(t, "y", tt_permute(result, TT_AXES(0, 2, 3, 1)));
  if (!dx && !dw) return;
  tt_val dy = tt_permute(input(t, "dy", TT_SHAPE(n, out, out, k)), TT_AXES(0, 3, 1, 2)), gradients[2];
  tt_vjp(result, dy, ((tt_val[]){x, weight}), 2, gradients);
  if (dx) tt_output(t, "dx", tt_permute(gradients[0], TT_AXES(0, 2, 3, 1)));
  if (dw) tt_output(t, "dw", gradients[1]);
}
static void trace_conv(tt_trace *t, const bench_workload *w) { convolution(t, w, true, false, false); }
static void trace_conv_dx(tt_trace *t, const bench_workload *w) { convolution(t, w, false, true, false); }
static void trace_conv_dw(tt_trace *t, const bench_workload *w) { convolution(t, w, false, false, true); }
static void trace_conv_bwd(tt_trace *t, const bench_workload *w) { convolution(t, w, true, true, true); }

static void trace_softmax(tt_trace *t, const bench_workload *w) { tt_output(t, "y", tt_softmax(rows_input(t, "x", w), -1)); }
static void trace_gelu(tt_trace *t, const bench_workload *w) { tt_output(t, "y", tt_gelu(rows_input(t, "x", w), true)); }
static void trace_add(tt_trace *t, const bench_workload *w) { tt_output(t, "y", tt_add(rows_input(t, "x", w), rows_input(t, "z", w))); }
static void trace_residual(tt_trace *t, const bench_workload *w) { tt_output(t, "y", tt_relu(tt_add(rows_input(t, "x", w), rows_input(t, "z", w)))); }
static void trace_transpose(tt_trace *t, const bench_workload *w) { tt_output(t, "y", tt_transpose(rows_input(t, "x", w), 0, 1)); }
static void trace_sum(tt_trace *t, const bench_workload *w) { tt_output(t, "y", tt_sum(rows_input(t, "x", w), TT_AXES(-1), false)); }
static void trace_dropout(tt_trace *t, const bench_workload *w) { tt_output(t, "y", tt_dropout(rows_input(t, "x", w), 0.1)); }

/* Forward, and with it the gradient for x (and for gain and bias where there are such) of what `y` says. */
static void backward(tt_trace *t, tt_val y, const tt_val *wrt, int n, const char *const *names) {
  tt_val dy = input(t, "dy", tt_shape_of(y)), gradients[3];
  tt_output(t, "y", y);
  tt_vjp(y, dy, wrt, n, gradients);
  for (int i = 0; i < n; i++) tt_output(t, names[i], gradients[i]);
}
static const char *const gradient_names[] = {"dx", "dgain", "dbias"};
static void trace_softmax_bwd(tt_trace *t, const bench_workload *w) {
  tt_val x = rows_input(t, "x", w);
  backward(t, tt_softmax(x, -1), &x, 1, gradient_names);
}
static void trace_gelu_bwd(tt_trace *t, const bench_workload *w) {
  tt_val x = rows_input(t, "x", w);
  backward(t, tt_gelu(x, true), &x, 1, gradient_names);
}
static tt_val layer_norm(tt_trace *t, const bench_workload *w, tt_val of[3]) {
  of[0] = rows_input(t, "x", w), of[1] = input(t, "gain", TT_SHAPE(w->size[1])), of[2] = input(t, "bias", TT_SHAPE(w->size[1]));
  return tt_f_layer_norm(of[0], of[1], of[2], 1, 1e-5);
}
static void trace_layer_norm(tt_trace *t, const bench_workload *w) {
  tt_val of[3];
  tt_output(t, "y", layer_norm(t, w, of));
}
static void trace_layer_norm_bwd(tt_trace *t, const bench_workload *w) {
  tt_val of[3], y = layer_norm(t, w, of);
  backward(t, y, of, 3, gradient_names);
}

/* Training: [N*H*H, C] is what images of N_C_H are in memory, channels last. */
static tt_val batch_norm(tt_trace *t, const bench_workload *w, tt_val of[3]) {
  int64_t c = w->size[1];
  tt_val mean, var;
  of[0] = input(t, "x", TT_SHAPE(w->size[0] * w->size[2] * w->size[2], c)), of[1] = input(t, "gain", TT_SHAPE(c)), of[2] = input(t, "bias", TT_SHAPE(c));
  tt_val y = tt_f_batch_norm(of[0], of[1], of[2], input(t, "mean", TT_SHAPE(c)), input(t, "variance", TT_SHAPE(c)), true, 0.1, 1e-5, &mean, &var);
  tt_output(t, "new_mean", mean);
  tt_output(t, "new_variance", var);
  return y;
}
static void trace_batch_norm(tt_trace *t, const bench_workload *w) {
  tt_val of[3];
  tt_output(t, "y", batch_norm(t, w, of));
}
static void trace_batch_norm_bwd(tt_trace *t, const bench_workload *w) {
  tt_val of[3], y = batch_norm(t, w, of);
  backward(t, y, of, 3, gradient_names);
}

/* The mean loss and its gradient. */
static void trace_cross_entropy(tt_trace *t, const bench_workload *w) {
  tt_val x = rows_input(t, "x", w), loss = tt_cross_entropy(x, tt_input(t, "y", TT_I32, TT_SHAPE(w->size[0]))), gradient;
  tt_grad(loss, &x, 1, &gradient);
  tt_output(t, "loss", loss);
  tt_output(t, "dx", gradient);
}

/* As passes/optim.def updates a parameter, of a gradient that is given. */
static void trace_adamw(tt_trace *t, const bench_workload *w) {
  tt_val g = input(t, "g", TT_SHAPE(w->size[0])), lr = tt_input(t, "lr", TT_F64, TT_SCALAR), step = tt_add(tt_cast(tt_input(t, "step", TT_I64, TT_SCALAR), TT_F64), 1);
  tt_val p = tt_state(g, "w", TT_SHAPE(w->size[0]), tt_init_zeros()), m = tt_state(g, "w.exp_avg", TT_SHAPE(w->size[0]), tt_init_zeros()),
         v = tt_state(g, "w.exp_avg_sq", TT_SHAPE(w->size[0]), tt_init_zeros());
  tt_val m1 = tt_add(m, tt_mul(0.1, tt_sub(g, m))), v1 = tt_add(tt_mul(0.999, v), tt_mul(0.001, tt_mul(g, g)));
  tt_val root = tt_mul(tt_sqrt(v1), tt_cast(tt_rsqrt(tt_sub(1, tt_pow(0.999, step))), TT_F32));
  tt_val rate = tt_cast(tt_div(lr, tt_sub(1, tt_pow(0.9, step))), TT_F32), kept = tt_cast(tt_sub(1, tt_mul(lr, 0.01)), TT_F32);
  tt_assign(p, tt_sub(tt_mul(p, kept), tt_mul(rate, tt_div(m1, tt_add(root, 1e-8)))));
  tt_assign(m, m1);
  tt_assign(v, v1);
}

static tt_val attention(tt_trace *t, const bench_workload *w, bool naive, tt_val of[3]) {
  const char *const names[] = {"q", "k", "v"};
  for (int i = 0; i < 3; i++) of[i] = input(t, names[i], TT_SHAPE(w->size[0], w->size[1], w->size[2], w->size[3]));
  return naive ? tt_f_attention_naive(of[0], of[1], of[2], .causal = w->causal) : tt_f_attention(of[0], of[1], of[2], .causal = w->causal);
}
static void trace_attention(tt_trace *t, const bench_workload *w) { tt_output(t, "y", attention(t, w, false, (tt_val[3]){0})); }
static void trace_attention_naive(tt_trace *t, const bench_workload *w) { tt_output(t, "y", attention(t, w, true, (tt_val[3]){0})); }
static void trace_attention_bwd(tt_trace *t, const bench_workload *w) {
  tt_val of[3], y = attention(t, w, false, of);
  backward(t, y, of, 3, (const char *const[]){"dq", "dk", "dv"});
}

/* Each kernel needs the one before. */
static void trace_kernels(tt_trace *t, const bench_workload *w) {
  tt_val x = input(t, "x", TT_SHAPE(16)), a = input(t, "a", TT_SHAPE(16)), b = input(t, "b", TT_SHAPE(16));
  for (int64_t i = 0; i < w->size[0]; i++) x = i % 2 ? tt_add(x, b) : tt_mul(x, a);
  tt_output(t, "y", x);
}

/* Two tasks each, and every reversal reads what the other thread wrote. */
static void trace_barriers(tt_trace *t, const bench_workload *w) {
  tt_val x = input(t, "x", TT_SHAPE(16)), a = input(t, "a", TT_SHAPE(16));
  for (int64_t i = 0; i < w->size[0]; i++) x = tt_mul(tt_flip(x, TT_AXES(0)), a);
  tt_output(t, "y", x);
}

static tt_val tiny(tt_val x, void *arg) {
  (void)arg;
  return tt_sequential(x, TT_LINEAR(16), TT_RELU, TT_LINEAR(4));
}
static void network(tt_trace *t, const bench_workload *w, tt_model_fn *model, int64_t classes, tt_shape x) {
  x.dim[0] = w->size[0];
  tt_val out = model(input(t, "x", x), &(model_config){.classes = classes});
  if (strcmp(w->family->kind, "train")) tt_output(t, "logits", out);
  else tt_output(t, "loss", tt_cross_entropy(out, tt_input(t, "y", TT_I32, TT_SHAPE(w->size[0]))));
}
/* Equal residual blocks x + relu(x w1) w2 of width 256. */
static void trace_blocks(tt_trace *t, const bench_workload *w) {
  tt_val x = input(t, "x", TT_SHAPE(w->size[0], 256));
  for (int64_t i = 0; i < w->size[1]; i++) {
    char name[32];
    snprintf(name, sizeof name, "block%lld", (long long)i);
    tt_scope_push(x, name);
    x = tt_add(x, tt_linear(tt_relu(tt_linear(x, "fc1", 256)), "fc2", 256));
    tt_scope_pop(x);
  }
  tt_output(t, "loss", tt_cross_entropy(tt_linear(x, "head", 10), tt_input(t, "y", TT_I32, TT_SHAPE(w->size[0]))));
}
static void trace_mlp(tt_trace *t, const bench_workload *w) { network(t, w, model_mlp, 10, TT_SHAPE(1, 784)); }
static void trace_cnn(tt_trace *t, const bench_workload *w) { network(t, w, model_cnn, 10, TT_SHAPE(1, 3, 32, 32)); }
static void trace_resnet20(tt_trace *t, const bench_workload *w) { network(t, w, model_resnet20, 10, TT_SHAPE(1, 3, 32, 32)); }
static void trace_vit(tt_trace *t, const bench_workload *w) { network(t, w, model_vit, 10, TT_SHAPE(1, 3, 32, 32)); }
static void trace_gpt(tt_trace *t, const bench_workload *w) {
  tt_shape s = TT_SHAPE(w->size[0], GPT_T);
  tt_val out = model_gpt(tt_input(t, "x", TT_I32, s), &(model_config){.classes = GPT_V});
  if (strcmp(w->family->kind, "train")) tt_output(t, "logits", out);
  else tt_output(t, "loss", tt_cross_entropy(tt_reshape(out, TT_SHAPE(-1, GPT_V)), tt_flatten(tt_input(t, "y", TT_I32, s), 0)));
}
static void trace_charlstm(tt_trace *t, const bench_workload *w) {
  tt_shape s = TT_SHAPE(w->size[0], 128);
  tt_val out = model_charlstm(tt_input(t, "x", TT_I32, s), &(model_config){.classes = GPT_V});
  tt_output(t, "loss", tt_cross_entropy(tt_reshape(out, TT_SHAPE(-1, GPT_V)), tt_flatten(tt_input(t, "y", TT_I32, s), 0)));
}
static void trace_tiny(tt_trace *t, const bench_workload *w) { network(t, w, tiny, 4, TT_SHAPE(1, 8)); }

/* -- The table ------------------------------------------------------------------------------------------------------------------ */

#define TRAIN_PEERS "torch torch-compile jax"
#define TRAIN_IMAGE_PEERS "torch torch-cl torch-compile torch-compile-cl jax"
#define INFER_PEERS "torch torch-compile torch-freeze jax ort openvino"
#define INFER_IMAGE_PEERS "torch torch-cl torch-compile torch-compile-cl torch-freeze jax ort openvino"
#define PRODUCT_PEERS "torch jax ort openvino"                        /* PyTorch compiles no product written to a given result */
#define ROW_PEERS "torch torch-compile jax ort openvino"
#define DECODE "b1[_T]"
#define CONV "N_C_H_K_R_S[_G]"
const bench_family bench_families[] = {
  {"train", "mlp", "bN", train_mlp, 0, TRAIN_PEERS, trace_mlp, "momentum=0.9"},
  {"train", "cnn", "bN", train_cnn, 0, TRAIN_IMAGE_PEERS, trace_cnn, "momentum=0.9"},
  {"train", "resnet20", "bN", train_resnet20, 0, TRAIN_IMAGE_PEERS, trace_resnet20, "momentum=0.9, weight_decay=1e-4"},
  {"train", "vit", "bN", train_vit, 0, TRAIN_PEERS, trace_vit, "beta2=0.95, weight_decay=0.1", "adamw"},
  {"train", "gpt", "bN", train_gpt, 0, TRAIN_PEERS, trace_gpt, "beta2=0.95, weight_decay=0.1", "adamw"},
  {"train", "charlstm", "bN", train_charlstm, 0, NULL, trace_charlstm, NULL, "adam"},
  {"train", "tiny", "bN", train_tiny, 0, NULL, trace_tiny, "momentum=0.9"},
  {"train", "blocks", "bN_L", train_blocks, 0, NULL, trace_blocks, "momentum=0.9"},
  {"infer", "mlp", "bN", infer_mlp, 0, INFER_PEERS, trace_mlp},
  {"infer", "cnn", "bN", infer_cnn, 0, INFER_IMAGE_PEERS, trace_cnn},
  {"infer", "resnet20", "bN", infer_resnet20, 0, INFER_IMAGE_PEERS, trace_resnet20},
  {"infer", "vit", "bN", infer_vit, 0, INFER_PEERS, trace_vit},
  {"infer", "gpt", "bN", infer_gpt, 0, INFER_PEERS, trace_gpt},
  {"decode", "gpt", DECODE, .model = model_gpt, .classes = GPT_V},
  {"decode", "gpt2", DECODE, .model = model_gpt2, .classes = GPT2_V},
  {"op", "matmul", "MxNxK", matmul, 0, PRODUCT_PEERS, trace_matmul},
  {"op", "matmul_nt", "MxNxK", matmul, 0, "torch jax", trace_matmul_nt},
  {"op", "matmul_tn", "MxNxK", matmul, 0, "torch jax", trace_matmul_tn},
  {"op", "bmm", "BxMxNxK", bmm, 0, PRODUCT_PEERS, trace_bmm},
  {"op", "conv", CONV, conv, 0, "torch torch-cl torch-compile torch-compile-cl jax ort openvino", trace_conv},
  {"op", "conv_bwd", CONV, conv_bwd, 0, TRAIN_IMAGE_PEERS, trace_conv_bwd},
  {"op", "conv_dx", CONV, conv, 0, NULL, trace_conv_dx},
  {"op", "conv_dw", CONV, conv, 0, NULL, trace_conv_dw},
  {"op", "attention", "B_H_T_D[_causal]", attention_flops, 0, "torch torch-compile jax ort openvino", trace_attention},
  {"op", "attention_naive", "B_H_T_D[_causal]", attention_flops, 0, NULL, trace_attention_naive},
  {"op", "attention_bwd", "B_H_T_D[_causal]", attention_bwd, 0, TRAIN_PEERS, trace_attention_bwd},
  {"op", "softmax", "RxC", NULL, 2, ROW_PEERS, trace_softmax},
  {"op", "softmax_bwd", "RxC", NULL, 4, NULL, trace_softmax_bwd},
  {"op", "layernorm", "RxC", NULL, 2, ROW_PEERS, trace_layer_norm},
  {"op", "layernorm_bwd", "RxC", NULL, 4, NULL, trace_layer_norm_bwd},
  {"op", "gelu", "RxC", NULL, 2, ROW_PEERS, trace_gelu},
  {"op", "gelu_bwd", "RxC", NULL, 4, NULL, trace_gelu_bwd},
  {"op", "add", "RxC", NULL, 3, ROW_PEERS, trace_add},
  {"op", "residual", "RxC", NULL, 3, NULL, trace_residual},
  {"op", "transpose", "RxC", NULL, 2, ROW_PEERS, trace_transpose},
  {"op", "sum", "RxC", NULL, 1, ROW_PEERS, trace_sum},
  {"op", "dropout", "RxC", NULL, 2, NULL, trace_dropout},
  {"op", "batchnorm", "N_C_H", NULL, 3, NULL, trace_batch_norm},
  {"op", "batchnorm_bwd", "N_C_H", NULL, 8, NULL, trace_batch_norm_bwd},
  {"op", "cross_entropy", "RxC", NULL, 2, NULL, trace_cross_entropy},
  {"op", "adamw", "N", NULL, 7, "torch jax", trace_adamw},
  {"op", "kernels", "N", NULL, 0, NULL, trace_kernels, .skip = "fuse"},
  {"op", "barriers", "N", NULL, 0, NULL, trace_barriers, .skip = "fuse", .grain = 8},
  {NULL},
};

const char *const bench_compile_names[] = {"train.mlp.b128", "train.cnn.b64", "train.resnet20.b64", "train.blocks.b64_2", "train.blocks.b64_24", NULL};
const char *const bench_memory_names[] = {"train.mlp.b128", "train.cnn.b64", "train.resnet20.b64", NULL};
const char *const bench_budget_names[] = {"train.resnet20.b64", NULL};
const char *const bench_model_names[] = {"train.mlp.b128", "train.cnn.b64", "train.resnet20.b64", "train.tiny.b1", "infer.mlp.b1", "infer.mlp.b64",
                                         "infer.cnn.b1", "infer.cnn.b64", "infer.resnet20.b1", "infer.resnet20.b64", "decode.gpt.b1", "decode.gpt2.b1", NULL};
const char *const bench_op_names[] = {
  "op.matmul.64x64x64", "op.matmul.128x128x128", "op.matmul.256x256x256", "op.matmul.512x512x512", "op.matmul.1024x1024x1024", "op.matmul.2048x2048x2048",
  "op.matmul.128x512x784", "op.matmul.64x256x4096", "op.matmul.1024x1536x384", "op.matmul.1x768x768", "op.matmul.128x10x512", "op.matmul_nt.256x256x256",
  "op.matmul_nt.128x512x784", "op.matmul_tn.256x256x256", "op.matmul_tn.512x784x128", "op.bmm.32x65x65x32",
  "op.conv.64_64_32_64_3_1", "op.conv_dx.64_64_32_64_3_1", "op.conv_dw.64_64_32_64_3_1", "op.conv_bwd.64_64_32_64_3_1", "op.conv.64_3_32_32_3_1", "op.conv_dw.64_3_32_32_3_1",
  "op.conv.64_16_32_16_3_1", "op.conv_dx.64_16_32_16_3_1", "op.conv_dw.64_16_32_16_3_1", "op.conv.64_128_16_128_3_1", "op.conv.64_64_32_128_1_1", "op.conv.64_64_32_128_3_2",
  "op.conv_dx.64_64_32_128_3_2", "op.conv_dw.64_64_32_128_3_2", "op.conv.64_128_32_128_3_1_128", "op.conv_dx.64_128_32_128_3_1_128", "op.conv_dw.64_128_32_128_3_1_128",
  "op.softmax.4096x1024", "op.layernorm.4096x1024", "op.gelu.4096x1024", "op.add.4096x1024", "op.transpose.4096x1024", "op.sum.4096x1024", "op.dropout.4096x1024",
  "op.residual.4096x1024", "op.cross_entropy.4096x1024", "op.batchnorm.64_64_32", "op.batchnorm_bwd.64_64_32", "op.softmax_bwd.4096x1024", "op.layernorm_bwd.4096x1024",
  "op.gelu_bwd.4096x1024", "op.adamw.16777216", "op.softmax.64x1024", "op.layernorm.64x1024", "op.gelu.64x1024", "op.add.64x1024", "op.dropout.64x1024", "op.kernels.1000", "op.barriers.1000", NULL};

/* -- Names ------------------------------------------------------------------------------------------------------------------------ */

static tt_status wrong(tt_error *err, const char *name, const bench_family *f) {
  if (f) return tt_fail(err, TT_INVALID, "error: %s is no workload: its sizes are not %s\n  at bench\n  fix: write %s.%s.%s with sizes from 1", name, f->sizes, f->kind, f->what, f->sizes);
  char known[900] = "";
  for (f = bench_families; f->kind; f++) {
    size_t n = strlen(known);
    snprintf(known + n, sizeof known - n, "%s%s.%s", n ? " " : "", f->kind, f->what);
  }
  return tt_fail(err, TT_INVALID, "error: there is no workload %s\n  at bench\n  fix: use one of %s, with its sizes: op.matmul.64x64x64", name, known);
}

/* How many sizes a family takes, and whether one more may follow. */
static int sizes_of(const bench_family *f, bool *one_more, bool *causal) {
  int n = 1;
  const char *optional = strchr(f->sizes, '[');
  for (const char *c = f->sizes; *c && c != optional; c++) n += *c == 'x' || *c == '_';
  *causal = optional && strstr(optional, "causal");
  *one_more = optional && !*causal;
  return n;
}

static bool read_sizes(bench_workload *w, const char *text) {
  bool one_more, causal, more = true;
  int wanted = sizes_of(w->family, &one_more, &causal);
  if (strcmp(w->family->kind, "op") && *text++ != 'b') return false;
  for (double all = 1; more;) {
    if (causal && w->n == wanted && !strcmp(text, "causal")) return w->causal = true;
    char *end;
    long long v = *text >= '1' && *text <= '9' ? strtoll(text, &end, 10) : 0;
    if (v < 1 || v > (1LL << 31) || w->n == 8 || (all *= (double)v) > 1e15) return false;
    w->size[w->n++] = v;
    more = *end == 'x' || *end == '_';
    if (!more && *end) return false;
    text = end + 1;
  }
  return w->n == wanted || (one_more && w->n == wanted + 1);
}

bool bench_parse(const char *name, bench_workload *w, tt_error *err) {
  *w = (bench_workload){0};
  bool kind = !strncmp(name, "op.", 3) || !strncmp(name, "train.", 6) || !strncmp(name, "infer.", 6) || !strncmp(name, "decode.", 7);
  if (snprintf(w->name, sizeof w->name, "%s%s", kind ? "" : "op.", name) >= (int)sizeof w->name) return wrong(err, name, NULL), false;
  const char *what = strchr(w->name, '.') + 1, *sizes = strchr(what, '.');
  for (const bench_family *f = bench_families; f->kind && sizes; f++)
    if (strlen(f->kind) == (size_t)(what - 1 - w->name) && !strncmp(f->kind, w->name, strlen(f->kind)) && strlen(f->what) == (size_t)(sizes - what) && !strncmp(f->what, what, strlen(f->what))) w->family = f;
  if (!w->family) return wrong(err, name, NULL), false;
  if (!read_sizes(w, sizes + 1)) return wrong(err, name, w->family), false;
  if (w->family->model && w->size[0] != 1) return wrong(err, name, w->family), false;
  if (!strncmp(w->family->what, "conv", 4) && (w->size[1] % groups_of(w) || w->size[3] % groups_of(w))) return wrong(err, name, w->family), false;
  return true;
}

double bench_flops(const bench_workload *w) { return w->family->flops ? w->family->flops(w) : 0; }
int64_t bench_context(const bench_workload *w) { return w->n > 1 ? w->size[1] : 128; }
double bench_bytes(const bench_workload *w) {
  if (w->family->model) return w->family->model == model_gpt ? decode_bytes(GPT_L, GPT_C, GPT_V) : decode_bytes(GPT2_L, GPT2_C, GPT2_V);
  double n = 1;
  for (int i = 0; i < w->n; i++) n *= S(i);
  if (!strncmp(w->family->what, "batchnorm", 9)) n *= S(2);
  return 4 * n * w->family->transfers;
}
