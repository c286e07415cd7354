import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.StoredField;
import org.apache.lucene.document.TextField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.similarities.BM25Similarity;
import org.apache.lucene.store.ByteBuffersDirectory;
import org.apache.lucene.util.QueryBuilder;

/** Lucene's top 10. Standard input: "passage ID TEXT" and then "query TEXT" lines, texts in base64; one line per hit. */
public class Hits {
    public static void main(String[] words) throws Exception {
        var analyzer = new EnglishAnalyzer();
        var similarity = new BM25Similarity(1.2f, 0.75f);
        var directory = new ByteBuffersDirectory();
        var writer = new IndexWriter(directory, new IndexWriterConfig(analyzer).setSimilarity(similarity));
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        IndexSearcher searcher = null;
        int number = 0;
        for (String line; (line = input.readLine()) != null; ) {
            String[] parts = line.split(" ");
            String text = new String(Base64.getDecoder().decode(parts[parts.length - 1]), StandardCharsets.UTF_8);
            if (parts[0].equals("passage")) {
                var document = new Document();
                document.add(new StoredField("id", parts[1]));
                document.add(new TextField("contents", text, Field.Store.NO));
                writer.addDocument(document);
                continue;
            }
            if (searcher == null) {
                writer.forceMerge(1);
                writer.close();
                searcher = new IndexSearcher(DirectoryReader.open(directory));
                searcher.setSimilarity(similarity);
            }
            var query = new QueryBuilder(analyzer).createBooleanQuery("contents", text);
            for (ScoreDoc hit : searcher.search(query, 10).scoreDocs) {
                System.out.println(number + " " + searcher.storedFields().document(hit.doc).get("id") + " " + hit.score);
            }
            number++;
        }
    }
}
