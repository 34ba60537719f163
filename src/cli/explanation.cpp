// Puts an explanation together: the report's canonical graph, decisions and exchanges, the plan's
// bytes, and what was measured.
#include "cli/explanation.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "cli/blocks.h"
#include "cli/explain_page.h"
#include "cli/measured.h"
#include "ir/text.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;

const pef::Plan& plan_of(const pef::Manifest& manifest, int n_chips) {
  const auto& plans = manifest.plans;
  auto found = std::find_if(plans.begin(), plans.end(), [&](const pef::Plan& plan) {
    return n_chips > 0 ? plan.n_chips == n_chips : plan.n_chips > 1;
  });
  return found == plans.end() ? plans.front() : *found;
}

const Json& report_of(const Json& report, int n_chips, const std::string& path) {
  for (const Json& plan : report.at("plans"))
    if (plan.at("n_chips") == n_chips) {
      if (!plan.contains("machine"))
        throw Error(ErrorCode::kBrokenFile,
                    path + ": was compiled before there were explanations; compile it again");
      return plan;
    }
  throw Error(ErrorCode::kBrokenFile,
              fmt::format("{}: its report has no plan for {} chips", path, n_chips));
}

class GraphExplainer {
 public:
  GraphExplainer(const ir::Graph& graph, const Json& report, const Measured& measured)
      : graph_(graph), report_(report), measured_(measured), producers_(graph.producers()) {
    for (const Json& weight : report.at("weights"))
      weights_[weight.at("name").get<std::string>()] = &weight;
    for (const ir::Input& input : graph.inputs) inputs_[input.value] = &input;
  }

  Json explain(std::optional<int> layer) const {
    std::vector<Block> blocks = blocks_of(graph_, report_, !layer);
    if (layer) keep_layer(&blocks, *layer);
    int64_t received = 0, meetings = 0;
    for (const Json& e : report_.at("exchanges")) {
      received += e.at("bytes_moved").get<int64_t>();
      meetings += e.at("with_previous").get<bool>() ? 0 : 1;
    }
    Json json = {{"name", graph_.name},
                 {"modelled_seconds", report_.at("modelled_seconds")},
                 {"exchanges", report_.at("exchanges").size()},
                 {"meetings", meetings},
                 {"received_bytes", received},
                 {"measured", measured_summary()},
                 {"blocks", Json::array()}};
    for (const Block& block : blocks) json["blocks"].push_back(block_json(block));
    return json;
  }

 private:
  void keep_layer(std::vector<Block>* blocks, int layer) const {
    std::vector<int> all;
    for (const Block& block : *blocks)
      all.insert(all.end(), block.layers.begin(), block.layers.end());
    std::erase_if(*blocks, [&](const Block& block) {
      return std::find(block.layers.begin(), block.layers.end(), layer) == block.layers.end();
    });
    if (!blocks->empty()) return;
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    throw Error(ErrorCode::kUsage,
                all.empty()
                    ? fmt::format("--layer {}: graph {} has no layers; leave the option out", layer,
                                  graph_.name)
                    : fmt::format("--layer {}: graph {} has layers {}", layer, graph_.name,
                                  ranges_text(all)));
  }

  Json measured_summary() const {
    if (!measured_.found) return {{"why_not", measured_.why_not}};
    double slowest = 0, transfer = 0, waited = 0;
    for (const auto& chip : measured_.found->chips) {
      double sum = 0;
      for (const Measurement::Step& step : chip) sum += step.seconds;
      slowest = std::max(slowest, sum);
    }
    for (const Json& exchange : report_.at("exchanges")) {
      const Measurement::Step step = measured_step(exchange);
      transfer += step.seconds - step.waited_seconds;
      waited += step.waited_seconds;
    }
    return {{"threads_per_chip", measured_.found->threads_per_chip},
            {"runs", measured_.found->runs},
            {"seconds", slowest},
            {"transfer_seconds", transfer},
            {"waited_seconds", waited}};
  }

  // Mean over the chips.
  Measurement::Step measured_step(const Json& exchange) const {
    Measurement::Step mean;
    const auto& chips = measured_.found->chips;
    for (const auto& steps : chips) {
      const Measurement::Step& step = steps.at(exchange.at("step").get<size_t>());
      mean.seconds += step.seconds / static_cast<double>(chips.size());
      mean.waited_seconds += step.waited_seconds / static_cast<double>(chips.size());
    }
    return mean;
  }

  Json block_json(const Block& block) const {
    Json json = {{"title", block.title},   {"path", block.path},         {"layers", block.layers},
                 {"nodes", Json::array()}, {"exchanges", Json::array()}, {"groups", Json::array()}};
    for (const ir::NodeId id : block.nodes) json["nodes"].push_back(node_json(block, id));
    for (size_t i = 0; i < block.exchanges.size(); ++i)
      json["exchanges"].push_back(exchange_json(block, i));
    if (report_.contains("groups")) json["groups"] = groups_json(block);
    return json;
  }

  Json exchange_json(const Block& block, size_t i) const {
    Json json = report_.at("exchanges").at(block.exchanges[i]);
    json["measured"] = nullptr;
    // Exchanges that meet together are measured as one.
    if (!measured_.found || json.at("with_previous").get<bool>()) return json;
    Measurement::Step mean;
    for (const std::vector<size_t>& exchanges : block.alike) {
      const Measurement::Step step = measured_step(report_.at("exchanges").at(exchanges.at(i)));
      mean.seconds += step.seconds / static_cast<double>(block.alike.size());
      mean.waited_seconds += step.waited_seconds / static_cast<double>(block.alike.size());
    }
    json["measured"] = {{"seconds", mean.seconds}, {"waited_seconds", mean.waited_seconds}};
    return json;
  }

  Json groups_json(const Block& block) const {
    std::map<int, Json> groups;
    for (const ir::NodeId id : block.nodes) {
      const int group = graph_.nodes[static_cast<size_t>(id)].group;
      if (group < 0) continue;
      if (!groups.contains(group)) {
        groups[group] = report_.at("groups").at(static_cast<size_t>(group));
        groups[group]["nodes"] = Json::array();
      }
      groups[group]["nodes"].push_back(id);
    }
    Json json = Json::array();
    for (auto& [index, group] : groups) json.push_back(std::move(group));
    return json;
  }

  // The exchange of the block that brings a node its operand; -1 if none does.
  int exchange_before(const Block& block, ir::ValueId value, ir::NodeId reader) const {
    const std::string& name = graph_.values[static_cast<size_t>(value)].name;
    for (size_t i = 0; i < block.exchanges.size(); ++i) {
      const Json& e = report_.at("exchanges").at(block.exchanges[i]);
      const std::string of = e.at("value");
      const auto readers = e.at("readers").get<std::vector<ir::NodeId>>();
      if ((of == name || of.starts_with(name + ".")) &&
          std::find(readers.begin(), readers.end(), reader) != readers.end())
        return static_cast<int>(i);
    }
    return -1;
  }

  Json input_json(const Block& block, ir::ValueId value, ir::NodeId reader) const {
    Json json = {{"value", graph_.values[static_cast<size_t>(value)].name},
                 {"from", producers_[static_cast<size_t>(value)]},
                 {"exchange", exchange_before(block, value, reader)}};
    const auto input = inputs_.find(value);
    if (input == inputs_.end()) return json;
    json["role"] = ir::role_name(input->second->role);
    json["name"] = input->second->name;
    const auto weight = weights_.find(input->second->name);
    if (weight == weights_.end()) return json;
    for (const char* key : {"shape", "dtype", "state", "rows_per_chip", "bytes_per_chip"})
      json[key] = weight->second->at(key);
    return json;
  }

  Json node_json(const Block& block, ir::NodeId id) const {
    const ir::Node& node = graph_.nodes[static_cast<size_t>(id)];
    const TensorType& type = graph_.type(node.outputs[0]);
    Json json = {
        {"id", id}, {"operator", node.op->name}, {"path", ""}, {"part", ""}, {"source", ""}};
    if (node.source >= 0) {
      const ir::Source& source = graph_.sources[static_cast<size_t>(node.source)];
      json["path"] = source.path;
      if (!source.file.empty()) json["source"] = fmt::format("{}:{}", source.file, source.line);
    }
    for (const ir::ValueId value : node.inputs)  // several gemms of one stored weight
      if (const auto input = inputs_.find(value); input != inputs_.end()) {
        const size_t part = input->second->name.find('[');
        if (input->second->role == ir::InputRole::kParameter && part != std::string::npos)
          json["part"] = input->second->name.substr(part);
      }
    json["value"] = graph_.values[static_cast<size_t>(node.outputs[0])].name;
    json["dtype"] = dtype_name(type.dtype);
    json["shape"] = type.shape;
    json["is_view"] = node.op->view != nullptr;
    json["group"] = node.group;
    json["inputs"] = Json::array();
    for (const ir::ValueId value : node.inputs)
      if (value != ir::kNoValue) json["inputs"].push_back(input_json(block, value, id));
    if (report_.at("decision_of_node").empty()) return json;
    const Json& decision =
        report_.at("decisions")
            .at(report_["decision_of_node"].at(static_cast<size_t>(id)).get<size_t>());
    for (const auto& [key, value] : decision.items()) json[key] = value;
    add_words(node.op->name, &json["split"]);
    for (Json& other : json["alternatives"]) add_words(node.op->name, &other["split"]);
    if (json["forced_node"] >= 0)
      json["forced_at"] = graph_.describe(graph_.nodes[json["forced_node"].get<size_t>()]);
    json.erase("forced_node");
    return json;
  }

  static void add_words(const std::string& op, Json* split) {
    const std::string factor = split->at("factor"), kind = split->at("kind");
    std::string otherwise = kind;
    if (kind == "tokens" && !factor.empty()) otherwise = fmt::format("tokens ({})", factor);
    if (kind == "M" || kind == "K") otherwise = factor.empty() ? "partial sums" : factor;
    if (kind == "M" && factor.empty()) otherwise = "features";
    (*split)["words"] = split_words(op, factor, otherwise);
  }

  const ir::Graph& graph_;
  const Json& report_;
  const Measured& measured_;
  std::vector<ir::NodeId> producers_;
  std::map<std::string, const Json*> weights_;
  std::map<ir::ValueId, const ir::Input*> inputs_;
};

}  // namespace

Json explain(const std::string& path, int n_chips, std::optional<int> layer) {
  const auto file = pef::File::open(path, n_chips);
  const pef::Plan& plan = plan_of(file->manifest(), n_chips);
  try {
    const Json report = Json::parse(file->report_json());
    const Json& of_plan = report_of(report, plan.n_chips, path);
    const ir::Module module = ir::parse(report.at("module").get<std::string>());
    Json json = {{"schema_version", 1},           {"pef", path},
                 {"n_chips", plan.n_chips},       {"mode", plan.mode},
                 {"machine", of_plan["machine"]}, {"chips", Json::array()},
                 {"notes", plan.notes},           {"graphs", Json::array()}};
    for (const pef::ChipPlan& chip : plan.chips)
      json["chips"].push_back({{"weights_bytes", chip.parameter_bytes},
                               {"activations_bytes", chip.arena_bytes - chip.transfer_bytes},
                               {"transfer_bytes", chip.transfer_bytes}});
    for (size_t g = 0; g < module.graphs.size(); ++g) {
      std::vector<size_t> steps;
      for (const pef::ChipPlan& chip : plan.chips)
        steps.push_back(chip.programs.at(g).steps.size());
      const Measured measured =
          read_measurement(path, file->digest(), module.graphs[g].name, steps);
      json["graphs"].push_back(
          GraphExplainer(module.graphs[g], of_plan.at("graphs").at(g), measured).explain(layer));
    }
    return json;
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::kBrokenFile,
                fmt::format("{}: its report can't be read: {}", path, error.what()));
  } catch (const std::out_of_range&) {
    throw Error(ErrorCode::kBrokenFile, path + ": its report does not belong to its plans");
  }
}

std::string explanation_page(const Json& explanation) {
  std::string data = explanation.dump();
  // Names come from models: "</script>" must not end the data.
  for (size_t at = 0; (at = data.find("</", at)) != std::string::npos; at += 3)
    data.replace(at, 2, "<\\/");
  std::string page(explain_page());
  return page.replace(page.find(kDataMark), kDataMark.size(), data);
}

}  // namespace shardwright::cli
