// A .pt2 archive: what kind of file it is, and its programs.
#include "frontend/pt2.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "frontend/pt2_graph.h"

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

}  // namespace

ir::Module read_pt2(SharedBytes bytes, const std::string& name) {
  const ZipArchive archive(std::move(bytes), name);
  check_kind(archive);
  ir::Module module;
  Weights weights(archive, module);
  for (const auto& [record, unused] : archive.records()) {
    if (!record.starts_with("models/") || !record.ends_with(".json")) continue;
    const std::string program_name = record.substr(7, record.size() - 12);
    const Json json = parse_json(archive.read(record), name + ": " + record);
    const Field program(json, name + ": " + record);
    check_program(program, name);
    weights.open(program_name);
    module.graphs.push_back(import_program(program, weights, module,
                                           program_name == "model" ? "forward" : program_name));
  }
  if (module.graphs.empty())
    throw Error(ErrorCode::kBrokenFile, name + ": the archive has no program (models/*.json)");
  return module;
}

ir::Module read_pt2(const std::string& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  return read_pt2(SharedBytes{file, file->data(), file->size()}, path.substr(path.rfind('/') + 1));
}

}  // namespace shardwright::frontend
