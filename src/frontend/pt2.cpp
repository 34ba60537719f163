// A .pt2 archive: what kind of file it is, and its programs.
#include "frontend/pt2.h"

#include <algorithm>
#include <charconv>
#include <set>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "frontend/pt2_graph.h"
#include "frontend/symbols.h"

namespace shardwright::frontend {
namespace {

constexpr int64_t kSchemaMajor = 8;

std::string trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  return std::string(text);
}

void check_kind(const ZipArchive& archive) {
  if (archive.has("serialized_exported_program.json") || !archive.has("archive_format"))
    throw Error(ErrorCode::kUnsupported, archive.name() +
                                             ": an archive of an older PyTorch, or not one of "
                                             "torch.export.save; export again with torch >= 2.9");
  if (const std::string format = trimmed(archive.read("archive_format")); format != "pt2")
    throw Error(ErrorCode::kBrokenFile,
                fmt::format("{}: its format is '{}', expected 'pt2'", archive.name(), format));
  if (const std::string order = trimmed(archive.read("byteorder")); order != "little")
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: its byte order is '{}'; export on a little-endian machine",
                            archive.name(), order));
}

void check_program(const Field& program, const std::string& name) {
  if (const int64_t major = program["schema_version"]["major"].integer(); major != kSchemaMajor)
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: schema version {}, but this reads {} (torch 2.9 and later)", name,
                            major, kSchemaMajor));
  const Field verifiers = program["verifiers"];
  bool core = false;
  for (size_t i = 0; i < verifiers.size(); ++i) core = core || verifiers[i].text() == "ATEN";
  if (!core)
    throw Error(ErrorCode::kUnsupported,
                name +
                    ": holds the raw form of torch.export; capture with shardwright, or call "
                    "ep.run_decompositions({}) before "
                    "torch.export.save");
}

// Each choice must be of a size that one of the programs leaves open.
void check_choices(const std::vector<DimChoice>& dims, const std::vector<Symbols>& programs,
                   const std::string& name) {
  std::string text;
  std::set<std::string> open;
  for (const Symbols& symbols : programs) {
    for (const Symbols::Open& size : symbols.open()) open.insert(size.dim);
    if (const std::string more = symbols.open_text(); text.find(more) == std::string::npos)
      text += (text.empty() ? "" : ", ") + more;
  }
  for (const DimChoice& dim : dims)
    if (!open.contains(dim.dim))
      throw Error(
          ErrorCode::kUsage,
          text.empty()
              ? fmt::format("--dim {}={}: all sizes of {} are fixed; export it with dynamic_shapes",
                            dim.dim, dim.size, name)
              : fmt::format("--dim {}={}: {} does not leave this size open; it leaves open {}",
                            dim.dim, dim.size, name, text));
}

}  // namespace

DimChoice parse_dim(const std::string& text) {
  const size_t equals = text.rfind('=');
  DimChoice choice{text.substr(0, equals), 0};
  const char* end = text.data() + text.size();
  const char* begin = equals == std::string::npos ? end : text.data() + equals + 1;
  const auto [stop, error] = std::from_chars(begin, end, choice.size);
  if (choice.dim.empty() || error != std::errc() || stop != end || choice.size < 0)
    throw Error(ErrorCode::kUsage,
                fmt::format("--dim {}: give INPUT.DIM=SIZE, as in input_ids.1=128", text));
  return choice;
}

ir::Module read_pt2(SharedBytes bytes, const std::string& name,
                    const std::vector<DimChoice>& dims) {
  const ZipArchive archive(std::move(bytes), name);
  check_kind(archive);
  ir::Module module;
  Weights weights(archive, module);
  std::vector<Symbols> symbols;
  for (const auto& [record, unused] : archive.records()) {
    if (!record.starts_with("models/") || !record.ends_with(".json")) continue;
    const std::string program_name = record.substr(7, record.size() - 12);
    const Json json = parse_json(archive.read(record), name + ": " + record);
    const Field program(json, name + ": " + record);
    check_program(program, name);
    weights.open(program_name);
    symbols.emplace_back(program, dims, name);
    module.graphs.push_back(import_program(program, symbols.back(), weights, module,
                                           program_name == "model" ? "forward" : program_name));
  }
  if (module.graphs.empty())
    throw Error(ErrorCode::kBrokenFile, name + ": the archive has no program (models/*.json)");
  check_choices(dims, symbols, name);
  return module;
}

ir::Module read_pt2(const std::string& path, const std::vector<DimChoice>& dims) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  return read_pt2(SharedBytes{file, file->data(), file->size()}, path.substr(path.rfind('/') + 1),
                  dims);
}

}  // namespace shardwright::frontend
