/* plot.c: a run as SVG: for each workload a bar a framework, its share of the workload's bound (of the fastest, where there is no bound) with its 95%
 * interval; and below, for ops that compute, the roofline: operations a second over operations a byte, both logarithmic. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { LEFT = 330, WIDTH = 620, BAR = 13, GAP = 9, ROOF = 460 };
static const char *const colors[] = {"#1b6ca8", "#e08e0b", "#6a994e", "#a23b72", "#8d6a9f", "#5c5c5c", "#c8553d", "#3aa6a0", "#b5a642"};

static void put(FILE *f, const char *text) {
  for (; *text; text++) {
    if (*text == '<') fputs("&lt;", f);
    else if (*text == '>') fputs("&gt;", f);
    else if (*text == '&') fputs("&amp;", f);
    else if (*text == '"') fputs("&quot;", f);
    else fputc(*text, f);
  }
}

static const char *color_of(const char *framework) {
  static const char *const names[] = {"tinytorch", "torch", "torch-cl", "torch-compile", "torch-compile-cl", "torch-freeze", "jax", "ort", "openvino"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(framework, names[i])) return colors[i];
  return "#999";
}

/* The time that is 100%. */
static double whole_of(const json_t *row, double peak) {
  const json_t *r;
  size_t i;
  double bound = bench_row_bound(row, peak), least = 0;
  json_array_foreach(json_object_get(row, "results"), i, r) {
    double ms = bench_number(r, "median_ms");
    if (ms > 0 && (least == 0 || ms < least)) least = ms;
  }
  return bound > 0 ? bound : least;
}

static int bars(FILE *f, const json_t *run, int y) {
  const json_t *row, *r;
  size_t i, k;
  double peak = bench_number(run, "peak_gflops"), most = 1;
  json_array_foreach(json_object_get(run, "rows"), i, row)
    json_array_foreach(json_object_get(row, "results"), k, r)
      if (bench_number(r, "low_ms") > 0) most = fmax(most, whole_of(row, peak) / bench_number(r, "low_ms"));
  double unit = WIDTH / most;
  json_array_foreach(json_object_get(run, "rows"), i, row) {
    double whole = whole_of(row, peak);
    fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-weight=\"bold\">", LEFT - 110, y + BAR - 2);
    put(f, bench_text(row, "workload"));
    fprintf(f, "</text>\n");
    json_array_foreach(json_object_get(row, "results"), k, r) {
      double ms = bench_number(r, "median_ms"), low = whole / bench_number(r, "high_ms"), high = whole / bench_number(r, "low_ms");
      if (ms <= 0) continue;
      fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", LEFT - 6, y + BAR - 2);
      put(f, bench_text(r, "framework"));
      fprintf(f, "</text>\n<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"><title>%.4g, 95%% in %.4g to %.4g</title></rect>\n", LEFT, y, unit * whole / ms, BAR - 2, color_of(bench_text(r, "framework")), ms,
              bench_number(r, "low_ms"), bench_number(r, "high_ms"));
      fprintf(f, "<path d=\"M%.1f %d V%d M%.1f %d H%.1f M%.1f %d V%d\" stroke=\"black\" fill=\"none\"/>\n", LEFT + unit * low, y + 2, y + BAR - 4, LEFT + unit * low, y + BAR / 2 - 1, LEFT + unit * high, LEFT + unit * high, y + 2, y + BAR - 4);
      fprintf(f, "<text x=\"%.1f\" y=\"%d\">%.0f%%</text>\n", LEFT + unit * fmax(whole / ms, high) + 5, y + BAR - 2, 100 * whole / ms);
      y += BAR;
    }
    y += GAP;
  }
  fprintf(f, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"40\" y2=\"%d\" stroke=\"#c00\" stroke-dasharray=\"4\"/>\n", LEFT + unit, LEFT + unit, y);
  return y;
}

typedef struct { double x0, x1, y0, y1; int top; } axes;
static double px(const axes *a, double v) { return LEFT + WIDTH * (log10(v) - a->x0) / (a->x1 - a->x0); }
static double py(const axes *a, double v) { return a->top + (ROOF - 60) * (1 - (log10(v) - a->y0) / (a->y1 - a->y0)); }

static bool computes(const json_t *row) {
  return bench_number(row, "flops") > 0 && bench_number(row, "traffic") > 0 && bench_number(json_array_get(json_object_get(row, "results"), 0), "median_ms") > 0;
}

static int roofline(FILE *f, const json_t *run, int y) {
  const json_t *row;
  size_t i;
  double peak = bench_number(run, "peak_gflops"), slowest = 1e30;
  axes a = {0, 3, 0, ceil(log10(peak)), y + 30};
  int n = 0;
  json_array_foreach(json_object_get(run, "rows"), i, row) {
    if (!computes(row)) continue;
    double x = bench_number(row, "flops") / bench_number(row, "traffic"), v = bench_number(row, "flops") / bench_number(json_array_get(json_object_get(row, "results"), 0), "median_ms") / 1e6;
    a.x0 = fmin(a.x0, floor(log10(x))), a.x1 = fmax(a.x1, ceil(log10(x))), a.y0 = fmin(a.y0, floor(log10(v)));
    slowest = fmin(slowest, bench_number(row, "gbytes_s"));
    n++;
  }
  if (!n || peak <= 0) return y;
  fprintf(f, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">roofline: GFLOP/s over operations a byte; %.0f GFLOP/s, %.1f GB/s (the slowest measured)</text>\n", LEFT, y + 18, peak, slowest);
  fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#888\"/>\n", LEFT, a.top, WIDTH, ROOF - 60);
  for (double d = a.x0; d <= a.x1; d++) fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n", px(&a, pow(10, d)), a.top + ROOF - 44, pow(10, d));
  for (double d = a.y0; d <= a.y1; d++) fprintf(f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", LEFT - 6, py(&a, pow(10, d)) + 4, pow(10, d));
  double left = fmax(pow(10, a.x0), pow(10, a.y0) / slowest), ridge = peak / slowest;
  if (left < ridge) fprintf(f, "<path d=\"M%.1f %.1f L%.1f %.1f L%.1f %.1f\" stroke=\"#c00\" fill=\"none\"/>\n", px(&a, left), py(&a, left * slowest), px(&a, ridge), py(&a, peak), px(&a, pow(10, a.x1)), py(&a, peak));
  json_array_foreach(json_object_get(run, "rows"), i, row) {
    if (!computes(row)) continue;
    double x = bench_number(row, "flops") / bench_number(row, "traffic"), v = bench_number(row, "flops") / bench_number(json_array_get(json_object_get(row, "results"), 0), "median_ms") / 1e6;
    fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\" fill-opacity=\"0.7\"><title>", px(&a, x), py(&a, v), colors[0]);
    put(f, bench_text(row, "workload"));
    fprintf(f, ": %.1f GFLOP/s</title></circle>\n", v);
  }
  return a.top + ROOF - 30;
}

char *bench_svg(const json_t *run) {
  char *body = NULL, *text = NULL;
  size_t n_body = 0, n_text = 0;
  FILE *f = open_memstream(&body, &n_body);
  if (!f) return NULL;
  fprintf(f, "<text x=\"10\" y=\"20\" font-size=\"14\">bench %s, %d thread%s, %s, ", bench_text(run, "what"), (int)bench_number(run, "threads"), bench_number(run, "threads") > 1 ? "s" : "", bench_text(run, "date"));
  put(f, bench_text(json_object_get(run, "machine"), "cpu"));
  fprintf(f, ": share of the bound (red), with 95%% intervals</text>\n");
  int height = roofline(f, run, bars(f, run, 44) + 20) + 20;
  bool ok = fclose(f) == 0 && (f = open_memstream(&text, &n_text));
  if (ok) {
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n%s</svg>\n", LEFT + WIDTH + 60, height,
            LEFT + WIDTH + 60, height, body);
    ok = fclose(f) == 0;
  }
  free(body);
  if (ok) return text;
  free(text);
  return NULL;
}
