// Rule files: what parses is matched on a small graph, too. The search has its own limit, so that
// patterns with few nodes suffice to find what is wrong with it.
#include "base/check.h"
#include "fuzz.h"
#include "ir/text.h"
#include "rules/match.h"

namespace {

constexpr const char* kGraph = R"(tensor 0 "w": f32[4, 4] parameter
graph forward {
  input %x: f32[4, 4] = user_input "x"
  input %w: f32[4, 4] = parameter "w" of 0 offset 0 strides [4, 1]
  %a: f32[4, 4] = mul(%x, %x)
  %b: bf16[4, 4] = cast(%a) {dtype=bf16}
  %c: f32[4, 4] = cast(%b) {dtype=f32}
  %d: f32[4, 4] = linear(%c, %w, -)
  %e: f32[4, 4] = linear(%a, %w, -)
  %f: f32[4, 4] = add(%d, %e) {alpha=1}
  %g: f32[4, 4] = mul(%f, %c)
  output %g = user_output "y"
}
)";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardwright;
  static const ir::Graph graph = ir::parse(kGraph).graphs.at(0);
  fuzz::expect_error_at_most([&] {
    const rules::RuleFile file = rules::parse_rules(fuzz::Input(data, size).rest(), "rules.yaml");
    size_t nodes = 0;
    for (const rules::Rule& rule : file.rules) nodes += rule.nodes.size() * rule.variants.size();
    if (nodes > 24) return;
    ir::Graph marked = graph;
    const rules::Matches matches = rules::match_rules(marked, file);
    rules::mark(marked, file, matches);
    for (const ir::Node& node : marked.nodes)
      CHECK(node.group < static_cast<int>(marked.groups.size()));
  });
  return 0;
}
