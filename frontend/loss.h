/* loss.h: losses and metrics; tinytorch.h includes it. */
#ifndef TT_LOSS_H
#define TT_LOSS_H

/* -- Losses. reduction: the mean unless said; x and y of equal shapes unless said ---------------------------------------- */

typedef enum { TT_MEAN, TT_SUM, TT_NONE, TT_BATCHMEAN } tt_reduction;          /* BATCHMEAN: sum / first dim */
typedef struct {
  tt_reduction reduction;
  tt_val weight;                   /* [C], of classes */
  double label_smoothing;          /* 0 .. 1; Szegedy et al. 2015 */
  bool ignoring; int64_t ignore_index;     /* ignoring: integer labels equal to ignore_index count for nothing */
} tt_cross_entropy_options;
/* x: logits [N,C] or [N,C,*D]; y: integer labels [N] or [N,*D], or probabilities of x's shape and type. The mean is over what counts,
 * weighted for integer labels. When x is a softmax over its classes its logits are used, and the trace has a warning that names both
 * lines. */
TT_API tt_val tt_cross_entropy_at(tt_here, tt_val x, tt_val y, tt_cross_entropy_options o);
#define tt_cross_entropy(x, y, ...) tt_cross_entropy_at(TT_HERE, x, y, (tt_cross_entropy_options){__VA_ARGS__})
/* x: log-probabilities, y: integer labels, as in cross_entropy. */
TT_API tt_val tt_nll_at(tt_here, tt_val x, tt_val y, tt_cross_entropy_options o);
#define tt_nll(x, y, ...) tt_nll_at(TT_HERE, x, y, (tt_cross_entropy_options){__VA_ARGS__})
TT_API tt_val tt_mse_at(tt_here, tt_val x, tt_val y, tt_reduction r);
TT_API tt_val tt_l1_at(tt_here, tt_val x, tt_val y, tt_reduction r);
TT_API tt_val tt_huber_at(tt_here, tt_val x, tt_val y, double delta, tt_reduction r);          /* Huber 1964 */
TT_API tt_val tt_smooth_l1_at(tt_here, tt_val x, tt_val y, double beta, tt_reduction r);       /* huber / beta */
TT_API tt_val tt_binary_cross_entropy_at(tt_here, tt_val x, tt_val y, tt_reduction r);         /* x: probabilities; logarithms >= -100 */
TT_API tt_val tt_binary_cross_entropy_with_logits_at(tt_here, tt_val x, tt_val y, tt_val weight, tt_val pos_weight, tt_reduction r);   /* weights broadcast; {0}: none */
TT_API tt_val tt_kl_div_at(tt_here, tt_val x, tt_val y, bool log_target, tt_reduction r);      /* x: log-probabilities; y: probabilities, or their logarithms */
TT_API tt_val tt_hinge_embedding_at(tt_here, tt_val x, tt_val y, double margin, tt_reduction r);       /* y: 1 or -1, of x's type or integers */
TT_API tt_val tt_cosine_embedding_at(tt_here, tt_val a, tt_val b, tt_val y, double margin, tt_reduction r);    /* a, b [N,D], y [N]: 1 or -1 */
TT_API tt_val tt_triplet_margin_at(tt_here, tt_val anchor, tt_val positive, tt_val negative, double margin, double p, tt_reduction r);   /* [N,D] */
TT_API tt_val tt_multi_margin_at(tt_here, tt_val x, tt_val y, double margin, tt_reduction r);  /* x [N,C], y integers [N] */
TT_API tt_val tt_gaussian_nll_at(tt_here, tt_val x, tt_val y, tt_val var, bool full, double eps, tt_reduction r);
TT_API tt_val tt_poisson_nll_at(tt_here, tt_val x, tt_val y, bool log_input, bool full, double eps, tt_reduction r);
#define tt_mse(x, y, r) tt_mse_at(TT_HERE, x, y, r)
#define tt_l1(x, y, r) tt_l1_at(TT_HERE, x, y, r)
#define tt_huber(x, y, delta, r) tt_huber_at(TT_HERE, x, y, delta, r)
#define tt_smooth_l1(x, y, beta, r) tt_smooth_l1_at(TT_HERE, x, y, beta, r)
#define tt_binary_cross_entropy(x, y, r) tt_binary_cross_entropy_at(TT_HERE, x, y, r)
#define tt_binary_cross_entropy_with_logits(x, y, weight, pos_weight, r) tt_binary_cross_entropy_with_logits_at(TT_HERE, x, y, weight, pos_weight, r)
#define tt_kl_div(x, y, log_target, r) tt_kl_div_at(TT_HERE, x, y, log_target, r)
#define tt_hinge_embedding(x, y, margin, r) tt_hinge_embedding_at(TT_HERE, x, y, margin, r)
#define tt_cosine_embedding(a, b, y, margin, r) tt_cosine_embedding_at(TT_HERE, a, b, y, margin, r)
#define tt_triplet_margin(anchor, positive, negative, margin, p, r) tt_triplet_margin_at(TT_HERE, anchor, positive, negative, margin, p, r)
#define tt_multi_margin(x, y, margin, r) tt_multi_margin_at(TT_HERE, x, y, margin, r)
#define tt_gaussian_nll(x, y, var, full, eps, r) tt_gaussian_nll_at(TT_HERE, x, y, var, full, eps, r)
#define tt_poisson_nll(x, y, log_input, full, eps, r) tt_poisson_nll_at(TT_HERE, x, y, log_input, full, eps, r)

/* Lin et al. 2017: cross entropy times (1 - p)^gamma, p being the probability of what is right, so that what is sure already counts little. Integer labels y of logits
 * x [N,C] or [N,C,*D]: of the softmax, times alpha. y of x's shape and type, 0 .. 1: of each sigmoid, times alpha for the part y and 1 - alpha for the part 1 - y.
 * alpha < 0: no such factor. */
TT_API tt_val tt_focal_at(tt_here, tt_val x, tt_val y, double alpha, double gamma, tt_reduction r);
/* Hadsell et al. 2006. a, b [N,D], y [N]: 1 (alike) or 0, of a's type or integers; d = |a - b|: (y d^2 + (1 - y) max(margin - d, 0)^2) / 2. */
TT_API tt_val tt_contrastive_at(tt_here, tt_val a, tt_val b, tt_val y, double margin, tt_reduction r);
/* InfoNCE, van den Oord et al. 2018, on cosines. a, b [N,D]: row i of a has row i of b as the right one among all rows of b: the cross entropy of cosine / temperature.
 * symmetric: the mean with that of b's rows among a's, as CLIP has it (Radford et al. 2021). */
TT_API tt_val tt_info_nce_at(tt_here, tt_val a, tt_val b, double temperature, bool symmetric);
/* NT-Xent, Chen et al. 2020 (SimCLR). a, b [N,D], two views of N samples: each of the 2N rows has its other view as the right one among the 2N - 1 others. */
TT_API tt_val tt_nt_xent_at(tt_here, tt_val a, tt_val b, double temperature);
/* Hinton et al. 2015. Logits [N,C] or [N,C,*D] of a student and a teacher: KL(softmax(teacher / t) || softmax(student / t)) t^2, the sum over classes; the mean is over what
 * remains. No gradient goes to the teacher. What learns from labels too adds a share of tt_cross_entropy. */
TT_API tt_val tt_distillation_at(tt_here, tt_val student, tt_val teacher, double temperature, tt_reduction r);
#define tt_focal(x, y, alpha, gamma, r) tt_focal_at(TT_HERE, x, y, alpha, gamma, r)
#define tt_contrastive(a, b, y, margin, r) tt_contrastive_at(TT_HERE, a, b, y, margin, r)
#define tt_info_nce(a, b, temperature, symmetric) tt_info_nce_at(TT_HERE, a, b, temperature, symmetric)
#define tt_nt_xent(a, b, temperature) tt_nt_xent_at(TT_HERE, a, b, temperature)
#define tt_distillation(student, teacher, temperature, r) tt_distillation_at(TT_HERE, student, teacher, temperature, r)

/* -- Metrics of a batch, as values of the graph; tt_test and the trainer measure whole data sets: tt_metrics in runtime.h ------------ */

/* x [N,C] or [N,C,*D]: scores; y: integer labels [N] or [N,*D]. Labels outside of 0 .. C-1 are never right. */
TT_API tt_val tt_topk_correct_at(tt_here, tt_val x, tt_val y, int64_t k);      /* i64[]: how many labels are among the k largest; of equal scores the first come first; NaN is no right answer */
TT_API tt_val tt_accuracy_at(tt_here, tt_val x, tt_val y, int64_t k);          /* that as a share, of x's type */
TT_API tt_val tt_confusion_matrix_at(tt_here, tt_val x, tt_val y);             /* i64[C,C]: row: label; column: the largest score */
TT_API tt_val tt_perplexity_at(tt_here, tt_val x, tt_val y);                   /* exp(mean cross entropy) of logits */
#define tt_topk_correct(x, y, k) tt_topk_correct_at(TT_HERE, x, y, k)
#define tt_accuracy(x, y, k) tt_accuracy_at(TT_HERE, x, y, k)
#define tt_confusion_matrix(x, y) tt_confusion_matrix_at(TT_HERE, x, y)
#define tt_perplexity(x, y) tt_perplexity_at(TT_HERE, x, y)

#endif
